"""How many units each group keeps for a budget."""
