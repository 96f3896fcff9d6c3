"""The learning half: networks, their optimizers and targets, and several learners as one."""
