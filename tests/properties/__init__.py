"""Properties that hold for every entry of the operator table."""
