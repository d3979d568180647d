"""Layers that serve more than one network."""
