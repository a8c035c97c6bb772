"""Interactive pruning in a browser on this machine."""
