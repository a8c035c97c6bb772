"""What a network costs, and the files it is shipped in."""
