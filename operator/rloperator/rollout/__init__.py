"""An RLRollout: what is seen of it, what is decided, and its Job."""
