"""The model as data: loading, saving, and the only way to change a graph."""
