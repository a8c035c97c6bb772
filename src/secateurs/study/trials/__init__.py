"""One training, one file."""
