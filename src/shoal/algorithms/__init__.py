"""Aggregation and optimisation: a few pure functions with explicit state, one paper a file."""
