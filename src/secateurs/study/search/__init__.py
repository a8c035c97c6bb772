"""The search over training parameters: grid, successive halving, TPE."""
