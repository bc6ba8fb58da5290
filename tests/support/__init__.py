"""What several test modules need; none of it is a test."""
