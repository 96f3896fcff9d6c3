"""Reinforcement learning on Ray, PyTorch and Gymnasium, driven by one RLExperiment document."""

__version__ = "0.1.0"
