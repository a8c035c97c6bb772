"""The library's own entry points: any PyTorch model, any batches."""
