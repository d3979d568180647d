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

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from gtool.errors import did_you_mean

LossKind = Literal["wgan-eps", "wgan", "hinge", "lsgan", "non-saturating", "relativistic"]
KINDS: tuple[str, ...] = get_args(LossKind)


def needs_real_in_generator(kind: str) -> bool:
    """Say whether the generator's loss looks at logits of real images."""
    return kind == "relativistic"


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return the scalar loss of logits (N,) of real and of generated images.

    Raises:
        ValueError: unknown kind, logits that are not (N,), or unpaired logits where pairs are compared.
    """
    real, fake = _logits(real), _logits(fake)
    if kind in ("wgan", "wgan-eps"):
        return fake.mean() - real.mean()
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "lsgan":
        return (real - 1).square().mean() + fake.square().mean()
    if kind == "non-saturating":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if kind == "relativistic":
        return _relativistic(real, fake)
    raise ValueError(f"unknown loss `{kind}`{did_you_mean(kind, KINDS)}")


def generator_loss(kind: str, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the scalar loss of logits (N,) of generated images; `real` only where `needs_real_in_generator`.

    Raises:
        ValueError: as `discriminator_loss`, or no logits of reals where they are needed.
    """
    fake = _logits(fake)
    if kind in ("wgan", "wgan-eps", "hinge"):
        return -fake.mean()
    if kind == "lsgan":
        return (fake - 1).square().mean()
    if kind == "non-saturating":
        return F.softplus(-fake).mean()
    if kind == "relativistic":
        if real is None:
            raise ValueError(f"the generator's `{kind}` loss needs the logits of real images")
        return _relativistic(fake, _logits(real))
    raise ValueError(f"unknown loss `{kind}`{did_you_mean(kind, KINDS)}")


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


def _logits(values: Tensor) -> Tensor:
    # (N, 1) against (N,) would broadcast to (N, N) and train on nonsense.
    if values.ndim != 1:
        raise ValueError(f"logits of shape (N,) expected, got {tuple(values.shape)}")
    return values.float()


def _relativistic(winner: Tensor, loser: Tensor) -> Tensor:
    if winner.shape != loser.shape:
        raise ValueError(f"relativistic loss pairs logits: {len(winner)} and {len(loser)} given")
    return F.softplus(loser - winner).mean()
