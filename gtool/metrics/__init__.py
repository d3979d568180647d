"""Distances between two sets of images, and attention against objects: leaves that read arrays and return numbers."""
