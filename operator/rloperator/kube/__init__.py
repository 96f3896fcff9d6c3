"""Kubernetes itself: its client, what the API server holds, names, and what pods are made of."""
