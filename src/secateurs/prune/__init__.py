"""Pruning: activations, angles, selection, compensation, removal."""
