"""Asynchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783, algorithm S3.

A2C whose workers do not wait for each other: each finds the gradient of its own fragment, the learner follows it.
"""

from dataclasses import replace

from rltrainer.algorithms.a2c import A2C
from rltrainer.api.options.on_policy import A3COptions
from rltrainer.execution.asynchronous import asynchronous_gradients

A3C = replace(A2C, name="A3C", options=A3COptions, strategy=asynchronous_gradients)
