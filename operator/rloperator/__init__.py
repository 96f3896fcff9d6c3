"""The Kubernetes operator for RLExperiment and RLRollout."""
