"""What strategies call: everything in this process, or workers, learners and replay as Ray actors."""
