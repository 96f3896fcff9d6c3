"""Workers, learners and replay shards as Ray actors."""
