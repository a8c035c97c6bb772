"""Pruning experiments: a layer, a whole network, a grid, the interactive explorer."""
