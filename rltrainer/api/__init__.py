"""The documents, as pydantic models: neither PyTorch nor Ray is imported here."""
