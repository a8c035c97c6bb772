"""The page of a study and its model card."""
