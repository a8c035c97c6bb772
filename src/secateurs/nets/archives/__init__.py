"""Pretrained weights out of archives that the Python package index carries."""
