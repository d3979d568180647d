"""How far a reconstruction is from its image, and how much an adversarial loss may weigh beside that; all in float32.

l1                    mean |x - y|. The paper's formula has a square, its code this; and this is what we do.
gradient_difference   mean |dx - dy| of neighbours, right and below: edges that are blurred cost, flat offsets do not.
multiscale_gradients  the same at the full size, a half and a quarter. It stands where LPIPS would, when there are no
                      weights for that; it is none of its kind, and knows nothing of what people see.
adaptive_weight       VQGAN (Esser et al. 2021), Eq. 7.

The images that they compare are (N, C, H, W).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = 3
WEIGHT_EPS = 1e-4  # released
MOST_RATIO = 1e4  # released


def l1(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return (reconstruction.float() - images.float()).abs().mean()


def gradient_difference(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring differences, of both directions together.

    Images of one pixel a side have no neighbours in that direction, which counts as no difference.
    """
    apart = reconstruction.float() - images.float()  # differences of differences are those of the difference
    directions = [apart.diff(dim=dim) for dim in (2, 3)]
    return torch.stack([d.abs().mean() if d.numel() else apart.new_zeros(()) for d in directions]).sum()


def multiscale_gradients(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean of `gradient_difference` at the full size, a half and a quarter, down to 2 px a side."""
    apart = reconstruction.float() - images.float()
    terms = []
    for _ in range(SCALES):
        terms.append(gradient_difference(apart, torch.zeros_like(apart)))
        if min(apart.shape[2:]) < 4:
            break
        apart = F.avg_pool2d(apart, 2)
    return torch.stack(terms).mean()


def adaptive_weight(
    nll_gradient: Tensor, gan_gradient: Tensor, weight: float = 0.8, most: float = MOST_RATIO
) -> Tensor:
    """Return the weight of the generator's adversarial loss: the ratio of two gradients at the decoder's last layer.

    For a batch in parts, on one process or several, the gradients are those of the whole batch, averaged before this.

    Args:
        nll_gradient: of the reconstruction loss, the perceptual term included, the quantizer's not.
        gan_gradient: of the adversarial loss, of the same shape.
        weight: of the ratio; 0.75 in the release for depth.
        most: where the ratio ends.

    Returns:
        A scalar without a graph, in [0, most * weight].
    """
    ratio = nll_gradient.detach().float().norm() / (gan_gradient.detach().float().norm() + WEIGHT_EPS)
    return weight * ratio.clamp(0.0, most)
