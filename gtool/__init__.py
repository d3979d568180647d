"""gtool: train, sample, score and export the transformer image generators from one command line."""

__version__ = "0.1.0"
