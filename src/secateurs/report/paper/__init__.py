"""The page of a run of the paper."""
