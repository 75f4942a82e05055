"""Every figure that the documents quote, each from one command."""
