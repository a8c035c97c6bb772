"""The page of a study over several networks."""
