"""Which way a score is better: of the metrics by name, and of the numbers in looks by their last word."""

from __future__ import annotations

HIGHER_IS_BETTER = frozenset({"is", "precision", "recall", "density", "coverage", "psnr", "ssim"})
# Numbers of looks into a model: shares of objects found, of wanted pixels, of codes in use.
HIGHER_IN_LOOKS = frozenset(
    {"psnr", "ssim", "codes_used", "perplexity", "pixels", "mean_iou", "attention", "margin"}
)
# What a metric can be at all; a gate outside could never be met, or never missed.
RANGES: dict[str, tuple[float, float]] = {
    "fid": (0, float("inf")),
    "clip_fid": (0, float("inf")),
    "rfd": (0, float("inf")),
    "swd": (0, float("inf")),
    "is": (1, float("inf")),
    "precision": (0, 1),
    "recall": (0, 1),
    "density": (0, float("inf")),
    "coverage": (0, 1),
    "psnr": (0, float("inf")),
    "ssim": (-1, 1),
    "l1": (0, 255),
    "lpips": (0, float("inf")),
}


def is_better_higher(name: str) -> bool:
    """Say whether more is better of a metric (`fid`) or of a number in a look (`reconstruction.psnr`)."""
    name = name.removesuffix(".value")
    if "." in name:
        return name.rpartition(".")[2] in HIGHER_IN_LOOKS
    return name in HIGHER_IS_BETTER


def range_of(name: str) -> tuple[float, float]:
    """Return what a metric can be; all numbers where nothing is known."""
    return RANGES.get(name.split("_")[0] if name.startswith("swd_") else name, (float("-inf"), float("inf")))
