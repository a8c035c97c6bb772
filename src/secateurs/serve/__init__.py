"""A page that computes: what a study or a model holds, explored in a browser on this machine."""
