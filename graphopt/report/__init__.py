"""What happened, as data and as text."""
