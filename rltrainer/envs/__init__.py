"""Environments: by name, as vectors one way or another, what they show as arrays, and their state."""
