"""Backbones, where their weights come from, and what freezing to a depth means for a network."""
