"""What a study knows about its networks beyond their accuracy."""
