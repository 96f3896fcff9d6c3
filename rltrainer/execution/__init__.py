"""Execution strategies: the order in which sampling and learning happen, wherever they happen."""
