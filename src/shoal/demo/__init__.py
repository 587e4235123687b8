"""A task to try everything with."""
