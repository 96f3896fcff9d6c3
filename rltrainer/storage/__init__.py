"""Where a run lives: checkpoints that are whole or do not exist, in a folder or in S3, and finding them again."""
