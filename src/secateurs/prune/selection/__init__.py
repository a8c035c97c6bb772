"""Selection rules: which units of a layer are kept."""
