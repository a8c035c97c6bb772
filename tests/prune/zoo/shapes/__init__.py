"""Small modules, one shape of network each, with what can be cut of each."""
