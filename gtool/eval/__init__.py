"""`gtool eval`: scores of images and generators."""
