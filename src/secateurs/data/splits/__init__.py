"""Train, validation and test sides: groups, assignment, ready-made splits, their record."""
