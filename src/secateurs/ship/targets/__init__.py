"""File formats that a model is exported to: one module per format."""
