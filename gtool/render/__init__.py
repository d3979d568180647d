"""Pixels for people: grids, animations, curves."""
