"""Angles between activation vectors: all pairs, exactly, in tiles."""
