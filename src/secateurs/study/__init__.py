"""Studies: configuration, trials, the sweep over depths, the choice, and what is made of it."""
