"""The page of a probe, and the part of it that a study's page has too."""
