"""Tuning: every method is given the same number of trials, and the same points of its search space."""
