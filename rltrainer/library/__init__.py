"""What `import rltrainer as rl` offers: runs and policies from Python, by the code of the commands."""
