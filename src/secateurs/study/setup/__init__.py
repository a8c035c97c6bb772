"""What trials and commands start from: configuration, images, defaults, seen images."""
