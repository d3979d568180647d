"""Adversarial losses of a discriminator and a generator, on logits and in fp32, and the energy distance beside them.

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

Axis letters: N images, F features, G groups of images.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.errors import did_you_mean

LossKind = Literal["wgan-eps", "wgan", "hinge", "lsgan", "non-saturating", "relativistic"]
KINDS: tuple[str, ...] = get_args(LossKind)
ENERGY_GROUP = 4  # images that the energy distance compares with each other
DISTANCE_EPS = 1e-6  # keeps the square root's derivative finite


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


def energy_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Return how far apart features (N, F) of generated and of real images are as distributions, 0 for equal ones.

    The energy distance (Szekely and Rizzo 2013), which Cramer GAN (Bellemare et al. 2017) trains with, on features
    of the discriminator: 2 E|x - y| - E|y - y'| - E|x - x'|, over E|x - x'|, with x real, y generated. Images that
    differ less from each other than real ones do are pushed apart, which no logit of a single image says.

    Images are compared within ENERGY_GROUP consecutive ones, so that the mean over shares is that of the batch.

    Raises:
        ValueError: fake and real do not have one shape, or N is no multiple of ENERGY_GROUP.
    """
    if fake.shape != real.shape or len(fake) % ENERGY_GROUP:
        raise ValueError(
            f"features {tuple(fake.shape)} and {tuple(real.shape)} are not of groups of {ENERGY_GROUP}"
        )
    x, y = (features.float().view(-1, ENERGY_GROUP, features.shape[1]) for features in (real, fake))
    among_real = _mean_of_pairs(_distances(x, x))
    away, among_fake = _distances(x, y).mean(dim=(1, 2)), _mean_of_pairs(_distances(y, y))
    return ((2 * away - among_fake) / among_real.clamp_min(DISTANCE_EPS) - 1).mean()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances within groups: (G, n, F), (G, m, F) -> (G, n, m)."""
    return (a[:, :, None] - b[:, None]).square().sum(-1).add(DISTANCE_EPS).sqrt()


def _mean_of_pairs(distances: Tensor) -> Tensor:
    """Mean over pairs of two different ones: (G, n, n) -> (G,)."""
    n = distances.shape[-1]
    others = ~torch.eye(n, dtype=torch.bool, device=distances.device)
    return (distances * others).sum(dim=(1, 2)) / (n * (n - 1))


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
