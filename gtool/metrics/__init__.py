"""Distances between two sets of images: leaves that read uint8 arrays and return numbers."""
