"""What a run tells the world: its rows of results, its progress, and its part of the resource's status."""
