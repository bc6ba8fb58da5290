"""The index: what was known of a store when it was last looked at. It may be deleted any time."""
