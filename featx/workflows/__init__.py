"""Whole jobs: fit-head and recipes."""
