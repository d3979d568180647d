"""Scores of one family's parts: attention, reconstruction, agreement with label maps."""
