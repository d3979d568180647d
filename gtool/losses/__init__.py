"""Losses: pure functions of logits, images and latents."""
