"""What the acting and the learning half share."""
