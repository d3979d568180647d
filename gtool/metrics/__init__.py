"""Distances between two sets of images, and attention against objects: functions of arrays that return numbers."""
