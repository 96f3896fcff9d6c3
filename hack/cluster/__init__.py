"""A Kubernetes to develop and test on, from what the machine offers. Standard library only: it runs before any venv."""
