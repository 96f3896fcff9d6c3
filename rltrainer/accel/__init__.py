"""What makes the trainer faster and changes no number."""
