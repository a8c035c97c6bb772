"""The embedded image set: rendered faces of 75 people with seven expressions."""
