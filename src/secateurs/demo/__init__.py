"""A page that classifies images in the visitor's browser."""
