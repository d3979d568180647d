"""`gtool train`: learning from images."""
