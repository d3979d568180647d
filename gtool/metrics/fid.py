"""FID: the Frechet distance of Inception features, and the same distance of CLIP's and of DINOv2's.

Heusel et al. 2017 (GANs Trained by a Two Time-Scale Update Rule), section 4; CLIP's features after Kynkaanniemi et al.
2023 (The Role of ImageNet Classes in Frechet Inception Distance), DINOv2's after Stein et al. 2023 (Exposing Flaws of
Generative Model Evaluation Metrics), where this distance agreed best with what people see. Resizing and Inception's
weights are clean-fid's; the distance is ours in fp64 (gtool/metrics/frechet.py), as clean-fid 0.1.35 calls scipy's
sqrtm in a way that fails from SciPy 1.18.
"""

from functools import partial

from torch import Tensor

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import frechet, frechet_of_rows, influence, influence_of_rows
from gtool.metrics.intervals import Values, with_interval


def fid(fake: Features, real: Features, seed: int = 0, *, name: str = "fid") -> Values:
    """Return the Frechet distance of two sets of features, under a name, and its interval; it depends on no seed."""
    return with_interval(name, distance(fake, real), distance_influence(fake, real))


clip_fid, fd_dinov2 = (partial(fid, name=name) for name in ("clip_fid", "fd_dinov2"))


def distance(fake: Features, real: Features) -> float:
    """Return the Frechet distance of any two sets of features (N, D) by the cheaper of two exact routes."""
    if _are_few(fake, real):
        return frechet_of_rows(fake.all_rows, real.all_rows)
    return frechet(real.gaussian, fake.gaussian)


def distance_influence(fake: Features, real: Features) -> Tensor:
    """Return by how much each row of `fake` moves the distance, (N,)."""
    if _are_few(fake, real):
        return influence_of_rows(real.all_rows, fake.all_rows)
    return influence(real.gaussian, fake.gaussian, fake.all_rows)


def _are_few(fake: Features, real: Features) -> bool:
    return (
        real.rows is not None and max(fake.count, real.count) < real.rows.shape[1] and fake.rows is not None
    )
