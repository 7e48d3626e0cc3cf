"""Which compression where, under a budget."""
