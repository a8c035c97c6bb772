"""Commands on a saved model: open it with images, evaluate, predict, prune, export."""
