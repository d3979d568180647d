"""Adversarial losses of a discriminator and a generator, on logits and in fp32.

wgan           Arjovsky et al. 2017. D: -E[D(x)] + E[D(G(z))], G: -E[D(G(z))].
wgan-eps       the same with `drift`, which the release of TransGAN trains with (its `wgangp-eps`).
hinge          Lim and Ye 2017. D: E[relu(1 - D(x))] + E[relu(1 + D(G(z)))], G: -E[D(G(z))].
lsgan          Mao et al. 2017, targets 1 and 0. D: E[(D(x) - 1)^2] + E[D(G(z))^2], G: E[(D(G(z)) - 1)^2].
non-saturating Goodfellow et al. 2014. D: E[softplus(-D(x))] + E[softplus(D(G(z)))], G: E[softplus(-D(G(z)))].
relativistic   RpGAN (Jolicoeur-Martineau 2018, as in R3GAN 2024), real i paired with fake i.
               D: E[softplus(D(G(z)) - D(x))], G: E[softplus(D(x) - D(G(z)))].

Deviations from the released code: its `standard` loss never assigns the discriminator's loss;
`non-saturating` is the working form of it. Its penalty and its drift are part of the loss; here they are
terms of their own.

Axis letters: N images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from gtool.errors import did_you_mean

LossKind = Literal["wgan-eps", "wgan", "hinge", "lsgan", "non-saturating", "relativistic"]
KINDS: tuple[str, ...] = get_args(LossKind)
_SEES_REAL = frozenset({"relativistic"})


def needs_real_in_generator(kind: str) -> bool:
    """Say whether the generator's loss looks at logits of real images."""
    _check(kind)
    return kind in _SEES_REAL


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return the scalar loss of logits (N,) of real and of generated images.

    Raises:
        ValueError: unknown kind, logits that are not (N,), or unpaired logits where pairs are compared.
    """
    _check(kind)
    return _DISCRIMINATOR[kind](_logits(real), _logits(fake))


def generator_loss(kind: str, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the scalar loss of logits (N,) of generated images; `real` only where `needs_real_in_generator`.

    Raises:
        ValueError: as `discriminator_loss`, or no logits of reals where they are needed.
    """
    _check(kind)
    if kind not in _SEES_REAL:
        return _GENERATOR[kind](_logits(fake))
    if real is None:
        raise ValueError(f"the generator's `{kind}` loss needs the logits of real images")
    return _relativistic(_logits(fake), _logits(real))


def drift(real: Tensor, batch_mean: Tensor) -> Tensor:
    """Return (E[D(x)])^2, which keeps the logits of real images near zero; the weight is the caller's.

    It is the square of the batch mean, as released; ProGAN has the mean of squares. A square of a mean is no
    mean over shares, so each share gets the value of the whole batch, and 2 E[D(x)] times the gradient of its
    own mean: averaged over shares of equal size, that is the gradient of the whole.

    Args:
        real: logits (N,) of one share (micro-batch, process) of the reals.
        batch_mean: scalar mean logit over all shares; no gradient flows through it.
    """
    mean, overall = _logits(real).mean(), batch_mean.detach().float()
    return overall.square() + 2 * overall * (mean - mean.detach())


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown loss `{kind}`{did_you_mean(kind, KINDS)}")


def _logits(values: Tensor) -> Tensor:
    # (N, 1) against (N,) would broadcast to (N, N) and train on nonsense.
    if values.ndim != 1:
        raise ValueError(f"logits of shape (N,) expected, got {tuple(values.shape)}")
    return values.float()


def _relativistic(winner: Tensor, loser: Tensor) -> Tensor:
    if winner.shape != loser.shape:
        raise ValueError(f"relativistic loss pairs logits: {len(winner)} and {len(loser)} given")
    return F.softplus(loser - winner).mean()


def _wgan(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _lsgan(real: Tensor, fake: Tensor) -> Tensor:
    return (real - 1).square().mean() + fake.square().mean()


def _non_saturating(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _raise_logit(fake: Tensor) -> Tensor:
    return -fake.mean()


_DISCRIMINATOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "wgan-eps": _wgan,
    "wgan": _wgan,
    "hinge": _hinge,
    "lsgan": _lsgan,
    "non-saturating": _non_saturating,
    "relativistic": _relativistic,
}
_GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "wgan-eps": _raise_logit,
    "wgan": _raise_logit,
    "hinge": _raise_logit,
    "lsgan": lambda fake: (fake - 1).square().mean(),
    "non-saturating": lambda fake: F.softplus(-fake).mean(),
}
