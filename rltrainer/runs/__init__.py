"""A run from its document to its checkpoints and results, and what is done with its policy."""
