"""Products written in another way: as several smaller ones, or with weights from a table."""
