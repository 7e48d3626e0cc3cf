"""Half precision: what is computed in it, and what has to be done for that."""
