"""Adversarial losses and the energy distance: their formulas, which way they push, and their terms over shares."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gtool.losses.adversarial import (
    ENERGY_GROUP,
    KINDS,
    discriminator_loss,
    drift,
    energy_distance,
    generator_loss,
    needs_real_in_generator,
)

REAL, FAKE = torch.tensor([2.0, -0.5]), torch.tensor([0.5, -3.0])


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


# Written out by hand for the four logits above.
EXPECTED = {
    "wgan": (-0.75 - 1.25, 1.25),
    "wgan-eps": (-0.75 - 1.25, 1.25),
    "hinge": ((0 + 1.5) / 2 + (1.5 + 0) / 2, 1.25),
    "lsgan": ((1 + 2.25) / 2 + (0.25 + 9) / 2, (0.25 + 16) / 2),
    "non-saturating": (
        (softplus(-2) + softplus(0.5)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
        (softplus(-0.5) + softplus(3)) / 2,
    ),
    "relativistic": ((softplus(-1.5) + softplus(-2.5)) / 2, (softplus(1.5) + softplus(2.5)) / 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_have_the_values_of_their_formulas(kind):
    discriminator, generator = EXPECTED[kind]
    assert discriminator_loss(kind, REAL, FAKE).item() == pytest.approx(discriminator)
    assert generator_loss(kind, FAKE, REAL).item() == pytest.approx(generator)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lsgan"])
def test_discriminator_loss_raises_reals_and_lowers_fakes(kind):
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    discriminator_loss(kind, real, fake).backward()
    assert real.grad.sum() < 0 < fake.grad.sum()


def test_lsgan_pulls_reals_to_one_and_fakes_to_zero():
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    discriminator_loss("lsgan", real, fake).backward()
    assert torch.equal(real.grad.sign(), (REAL - 1).sign())
    assert torch.equal(fake.grad.sign(), FAKE.sign())


@pytest.mark.parametrize("kind", KINDS)
def test_generator_loss_raises_every_fake(kind):
    fake = FAKE.clone().requires_grad_()
    generator_loss(kind, fake, REAL).backward()
    assert (fake.grad < 0).all()


def test_non_saturating_is_cross_entropy_on_logits():
    target = torch.cat([torch.ones(2), torch.zeros(2)])
    entropy = F.binary_cross_entropy_with_logits(torch.cat([REAL, FAKE]), target)
    assert discriminator_loss("non-saturating", REAL, FAKE).item() == pytest.approx(2 * entropy.item())


def test_non_saturating_still_pushes_when_the_discriminator_is_sure():
    fake = torch.tensor([-40.0], requires_grad=True)
    generator_loss("non-saturating", fake).backward()
    assert fake.grad.item() == pytest.approx(-1)


def test_relativistic_pairs_real_i_with_fake_i():
    swapped = discriminator_loss("relativistic", REAL, FAKE.flip(0))
    assert abs(swapped - discriminator_loss("relativistic", REAL, FAKE)) > 0.01
    with pytest.raises(ValueError, match="2 and 3"):
        discriminator_loss("relativistic", REAL, torch.zeros(3))


def test_relativistic_is_the_same_game_with_the_roles_swapped():
    assert torch.equal(
        generator_loss("relativistic", FAKE, REAL), discriminator_loss("relativistic", FAKE, REAL)
    )


def test_only_the_relativistic_generator_needs_reals():
    assert [kind for kind in KINDS if needs_real_in_generator(kind)] == ["relativistic"]
    with pytest.raises(ValueError, match="needs the logits of real images"):
        generator_loss("relativistic", FAKE)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_computed_in_fp32(kind):
    real, fake = REAL.bfloat16(), FAKE.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = discriminator_loss(kind, real, fake), generator_loss(kind, fake, real)
    assert [loss.dtype for loss in losses] == [torch.float32] * 2
    assert losses[0].item() == pytest.approx(EXPECTED[kind][0], rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_stay_finite_for_extreme_logits(kind):
    huge = torch.tensor([1e4, -1e4])
    assert discriminator_loss(kind, huge, -huge).isfinite()
    assert generator_loss(kind, huge, -huge).isfinite()


def test_unknown_losses_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`hinges`; did you mean `hinge`"):
        discriminator_loss("hinges", REAL, FAKE)
    with pytest.raises(ValueError, match=r"known: .*hinge.*wgan-eps"):
        generator_loss("standard", FAKE)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_with_a_spare_axis_are_refused(kind):
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        discriminator_loss(kind, REAL.unsqueeze(1), FAKE)
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        generator_loss(kind, FAKE.unsqueeze(1), REAL)


# Drift.


def test_drift_is_the_square_of_the_mean_not_the_mean_of_squares():
    logits = torch.tensor([3.0, -1.0], requires_grad=True)
    value = drift(logits, logits.mean())
    value.backward()
    assert value.item() == pytest.approx(1.0)
    assert logits.grad.tolist() == pytest.approx([1.0, 1.0])  # 2 mean / N


@pytest.mark.parametrize("num_shares", [2, 4])
def test_drift_averaged_over_shares_has_the_gradient_of_the_whole(num_shares):
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor(1.5, requires_grad=True)
    (whole,) = torch.autograd.grad((weight * logits).mean().square(), weight)
    mean = (weight * logits).mean().detach()
    shares = [drift(weight * share, mean) for share in logits.chunk(num_shares)]
    (averaged,) = torch.autograd.grad(torch.stack(shares).mean(), weight)
    assert averaged.item() == pytest.approx(whole.item(), rel=1e-5)
    assert [share.item() for share in shares] == pytest.approx([mean.item() ** 2] * num_shares)


def test_drift_sends_no_gradient_through_the_batch_mean():
    mean = torch.tensor(2.0, requires_grad=True)
    logits = REAL.clone().requires_grad_()
    drift(logits, mean).backward()
    assert mean.grad is None
    assert logits.grad.tolist() == pytest.approx([2.0, 2.0])


def normal(count, scale=1.0, seed=0):
    return scale * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def test_energy_distance_is_that_of_szekely_and_rizzo_over_the_distance_among_reals():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    # Mean distances: among the reals 20 / 12; to the same four 20 / 16, to four that lie at 10 8.5.
    assert energy_distance(real, real) == pytest.approx((2 * 20 / 16 - 20 / 12) / (20 / 12) - 1, abs=1e-3)
    assert energy_distance(torch.full((4, 1), 10.0), real) == pytest.approx(17 / (20 / 12) - 1, abs=2e-3)


def test_energy_distance_is_zero_on_average_for_equal_distributions_alone():
    real, same = normal(8000), normal(8000, seed=1)
    assert abs(energy_distance(same, real)) < 0.02
    assert energy_distance(same / 2, real) > 0.05
    assert energy_distance(same * 2, real) > 0.05


def test_energy_distance_pushes_images_apart_that_differ_less_than_real_ones():
    fake = normal(400, scale=0.3, seed=1).requires_grad_()
    energy_distance(fake, normal(400)).backward()
    assert (fake * fake.grad).sum() < 0  # a step against the gradient makes them larger


def test_energy_distance_of_a_batch_is_the_mean_of_that_of_its_shares():
    fake, real = normal(16, seed=1), normal(16)
    halves = [float(energy_distance(fake[part], real[part])) for part in (slice(8), slice(8, 16))]
    assert float(energy_distance(fake, real)) == pytest.approx(sum(halves) / 2, rel=1e-5)
    with pytest.raises(ValueError, match=f"groups of {ENERGY_GROUP}"):
        energy_distance(fake[:6], real[:6])


def test_energy_distance_of_images_that_are_all_alike_has_a_gradient():
    fake = torch.zeros(4, 3, requires_grad=True)
    energy_distance(fake, torch.zeros(4, 3)).backward()
    assert fake.grad.isfinite().all()
