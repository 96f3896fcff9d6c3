"""An RLExperiment: what is seen of it, what is decided, and the RayJobs of its attempts."""
