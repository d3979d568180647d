"""Images: a name to a source, a source to pixels, pixels to endless batches; scenes drawn from a seed."""
