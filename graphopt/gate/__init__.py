"""The gate before deployment: what a candidate must keep to, line by line."""
