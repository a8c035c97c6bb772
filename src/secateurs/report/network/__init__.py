"""The page of a network pruned as a whole."""
