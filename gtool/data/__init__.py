"""Images: names to sources, sources to arrays of pixels, arrays to endless batches, and scenes drawn from a seed."""
