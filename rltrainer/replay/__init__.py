"""Past steps: where they are kept, and what is drawn from them."""
