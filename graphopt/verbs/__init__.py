"""What graphopt does, a verb in each module."""
