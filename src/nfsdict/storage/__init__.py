"""Storage: the files of a store. It and the core alone call the operating system about them."""
