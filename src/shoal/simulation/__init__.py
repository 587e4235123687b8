"""Simulated clients under the real rounds, strategies and aggregators, in one process or several."""
