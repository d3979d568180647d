"""Which way each metric is better: the one place that gates, baselines and reports ask."""

from __future__ import annotations

HIGHER_IS_BETTER: frozenset[str] = frozenset(
    {"is", "precision", "recall", "density", "coverage", "psnr", "ssim"}
)
