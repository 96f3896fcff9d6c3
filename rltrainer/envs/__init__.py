"""Environments: made by name, as one vector, with observations as arrays and with a state that can be saved.

A name is one of a kind, and each kind has a file: Gymnasium's registry (gymnasium_envs), Atari games (atari_envs),
EnvPool (envpool_envs), a class that is imported (imported_envs) or that Python code hands over (given_envs). To add a
kind, write a file with an `EnvKind` and a `find`, and name it in `source.KINDS`.
"""
