"""How a cut of a module of the zoo is made and checked, and which modules do not pass yet."""
