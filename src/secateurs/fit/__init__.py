"""Training a network's tail: metrics, frozen-prefix inputs, the training loop, its saved state."""
