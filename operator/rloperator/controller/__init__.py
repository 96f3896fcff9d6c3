"""kopf and the loop: events become keys, and a key becomes a reconciled object."""
