"""Mathematics as free functions in the notation of the papers."""
