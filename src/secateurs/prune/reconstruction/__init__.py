"""Blocks of a pruned network tuned to give what they gave before."""
