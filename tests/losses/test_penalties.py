"""Penalties of discriminators whose gradients are known, and against numerical derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gtool.losses.penalties import gradient_penalty, zero_centred
from gtool.train.augment.augment import augment, draw

SHAPE = (4, 3, 8, 8)


def _normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or SHAPE), generator=torch.Generator().manual_seed(seed))


def _linear(norm: float) -> torch.Tensor:
    weight = _normal(9, *SHAPE[1:])
    return (norm * weight / weight.norm()).requires_grad_()


def _by(weight: torch.Tensor):
    return lambda images: (images * weight).flatten(1).sum(1)


def _smooth() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))


def exact(discriminate, images: torch.Tensor) -> torch.Tensor:
    images = images.detach().float().requires_grad_()
    return zero_centred([discriminate(images)], [images])[0]


ALPHA = torch.tensor([0.0, 0.3, 0.8, 1.0]).view(4, 1, 1, 1)


@pytest.mark.parametrize(("norm", "expected"), [(3, 4), (1, 0), (0.5, 0.25)])
def test_gradient_penalty_of_a_linear_discriminator_is_known(norm, expected):
    value = gradient_penalty(_by(_linear(norm)), _normal(0), _normal(1), ALPHA)
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_gradient_penalty_looks_between_real_and_fake():
    real, fake = _normal(0), _normal(1)
    # The gradient of |x|^2 / 2 is x itself.
    value = gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real, fake, ALPHA)
    mixed = ALPHA * real + (1 - ALPHA) * fake
    assert value.item() == pytest.approx((mixed.flatten(1).norm(dim=1) - 1).square().mean().item(), rel=1e-5)


def test_gradient_penalty_trains_the_discriminator():
    weight = _linear(3)
    gradient_penalty(_by(weight), _normal(0), _normal(1), ALPHA).backward()
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    assert torch.allclose(weight.grad, 4 * weight.detach() / 3, atol=1e-5)


def test_penalties_send_no_gradient_into_the_images():
    images = [_normal(seed).requires_grad_() for seed in (0, 1)]
    network = _smooth()
    gradient_penalty(network, *images, ALPHA).backward()
    exact(network, images[0]).backward()
    assert [image.grad for image in images] == [None, None]


@pytest.mark.parametrize("penalty", ["gradient_penalty", "zero_centred"])
def test_second_order_gradients_agree_with_a_numerical_derivative(penalty):
    network = _smooth()
    first = network[1].weight

    def value() -> torch.Tensor:
        if penalty == "zero_centred":
            return exact(network, _normal(0))
        return gradient_penalty(network, _normal(0), _normal(1), ALPHA)

    (gradient,) = torch.autograd.grad(value(), first)
    direction = _normal(3, *first.shape)
    with torch.no_grad():
        first.add_(direction, alpha=1e-3)
    above = value().item()
    with torch.no_grad():
        first.sub_(direction, alpha=2e-3)
    assert (gradient * direction).sum().item() == pytest.approx((above - value().item()) / 2e-3, rel=1e-2)


def test_a_flat_discriminator_has_finite_penalty_gradients():
    weight = torch.zeros(SHAPE[1:], requires_grad=True)
    value = gradient_penalty(_by(weight), _normal(0), _normal(1), ALPHA)
    value.backward()
    assert value.item() == 1.0
    assert weight.grad.isfinite().all()


def test_zero_centred_penalty_of_a_quadratic_discriminator_is_known():
    curvature, images = _normal(5, *SHAPE[1:]), _normal(0)
    value = exact(lambda x: (curvature * x.square()).flatten(1).sum(1) / 2, images)
    expected = (curvature * images).square().flatten(1).sum(1).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_zero_centred_penalty_sees_the_images_before_augmentation():
    weight, images = _linear(2), _normal(0)
    draws = draw(("cutout:1",), 4, 8, torch.Generator().manual_seed(0))
    value = exact(lambda x: _by(weight)(augment(x, draws)), images)
    # What has been cut out has no gradient: the visible part of the weights is left.
    visible = augment(torch.ones(SHAPE), draws)
    expected = (visible * weight).square().flatten(1).sum(1).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert value < 4


def test_zero_centred_penalties_of_several_sets_come_from_one_call():
    network, sets = _smooth(), [_normal(0).requires_grad_(), _normal(1).requires_grad_()]
    together = zero_centred(network(torch.cat(sets)).chunk(2), sets)
    alone = [exact(network, images) for images in sets]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=0)


def test_penalties_are_fp32_whatever_the_images_are():
    seen = []

    def discriminate(images):
        seen.append(images.dtype)
        return _by(_linear(3))(images).bfloat16()

    real, fake = _normal(0).bfloat16(), _normal(1).bfloat16()
    values = [
        gradient_penalty(discriminate, real, fake, ALPHA),
        exact(discriminate, real),
    ]
    assert {value.dtype for value in values} == set(seen) == {torch.float32}
    assert values[0].item() == pytest.approx(4, abs=1e-5)
