"""Brushes, the differentiable renderer, and painting layer by layer."""
