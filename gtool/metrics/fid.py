"""FID: the Frechet distance of Inception features, and the same distance of CLIP's and of DINOv2's.

Heusel et al. 2017 (GANs Trained by a Two Time-Scale Update Rule), section 4; CLIP's features after Kynkaanniemi et al.
2023 (The Role of ImageNet Classes in Frechet Inception Distance), DINOv2's after Stein et al. 2023 (Exposing Flaws of
Generative Model Evaluation Metrics), where this distance agreed best with what people see. Resizing and Inception's
weights are clean-fid's; the distance is ours in fp64 (gtool/metrics/frechet.py), as clean-fid 0.1.35 calls scipy's
sqrtm in a way that fails from SciPy 1.18.
"""

from __future__ import annotations

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import frechet, frechet_of_rows


def fid(fake: Features, real: Features, seed: int = 0) -> dict[str, float]:
    """Return `fid` of two sets of Inception features; it depends on no seed."""
    return {"fid": distance(fake, real)}


def clip_fid(fake: Features, real: Features, seed: int = 0) -> dict[str, float]:
    """Return `clip_fid` of two sets of CLIP features; it depends on no seed."""
    return {"clip_fid": distance(fake, real)}


def fd_dinov2(fake: Features, real: Features, seed: int = 0) -> dict[str, float]:
    """Return `fd_dinov2` of two sets of DINOv2 features; it depends on no seed."""
    return {"fd_dinov2": distance(fake, real)}


def distance(fake: Features, real: Features) -> float:
    """Return the Frechet distance of any two sets of features (N, D) by the cheaper of two exact routes."""
    if fake.rows is not None and real.rows is not None and max(fake.count, real.count) < real.rows.shape[1]:
        return frechet_of_rows(fake.rows, real.rows)
    return frechet(real.gaussian, fake.gaussian)
