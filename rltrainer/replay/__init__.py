"""Replay: where past steps are stored, and how transitions are drawn from them."""
