"""Parts of pages about what a network can be trusted with and what it gets wrong."""
