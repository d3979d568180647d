"""Differentiable augmentation: what each operation does, what all of them promise to penalties and shares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gtool.train.augment import ada
from gtool.train.augment.augment import Drawn, Draws, augment, draw
from gtool.train.augment.policies import OPERATIONS, parse_policy

CPU = torch.device("cpu")
# The strongest form of each operation, so that no test passes because nothing was drawn.
STRONGEST = tuple("translation" if name == "translation" else f"{name}:1" for name in OPERATIONS)


def _images(n: int = 6, resolution: int = 16, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, resolution, resolution, generator=random) * 2 - 1


def _draws(policy: str | tuple[str, ...], n: int = 6, resolution: int = 16, seed: int = 0) -> Draws:
    words = parse_policy(policy) if isinstance(policy, str) else policy
    return draw(words, n, resolution, torch.Generator().manual_seed(seed))


def _by_hand(name: str, *rows: list[float], shared: tuple[int, ...] = ()) -> Draws:
    return Draws((Drawn(name, torch.tensor(rows), shared),), len(rows))


# Promises of all operations.


@pytest.mark.parametrize("name", OPERATIONS)
def test_number_zero_is_the_identity(name):
    images = _images()
    for seed in range(5):
        changed = augment(images, _draws(f"{name}:0", seed=seed))
        assert torch.allclose(changed, images, atol=1e-5)


def test_an_empty_policy_is_the_identity():
    images = _images()
    assert augment(images, _draws("")) is images


@pytest.mark.parametrize("word", STRONGEST)
def test_operations_change_images_and_keep_their_shape(word):
    images = _images()
    changed = augment(images, _draws(word))
    assert changed.shape == images.shape
    assert (changed - images).abs().max() > 0.05


@pytest.mark.parametrize("word", STRONGEST)
def test_identical_images_are_changed_differently(word):
    images = _images(1).expand(32, -1, -1, -1)
    changed = augment(images, _draws(word, 32))
    assert changed.var(dim=0).max() > 0.01


@pytest.mark.parametrize("word", STRONGEST)
def test_operations_can_be_differentiated_twice(word):
    images = _images(2, 8).double().requires_grad_()
    draws = _draws(word, 2, 8)

    def change(images: torch.Tensor) -> torch.Tensor:
        return augment(images, draws)

    assert torch.autograd.gradcheck(change, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(change, images, fast_mode=True)


@pytest.mark.parametrize("word", STRONGEST)
def test_a_share_of_the_draws_gives_what_the_whole_would_have_given(word):
    images, draws = _images(), _draws(word)
    whole = augment(images, draws)
    shares = [augment(images[part], draws[part]) for part in (slice(0, 2), slice(2, 3), slice(3, None))]
    assert [len(draws[part]) for part in (slice(0, 2), slice(2, 3), slice(3, None))] == [2, 1, 3]
    assert torch.allclose(torch.cat(shares), whole, atol=1e-5)


@pytest.mark.parametrize("word", STRONGEST)
def test_an_image_does_not_depend_on_its_neighbours(word):
    images, draws = _images(), _draws(word)
    others = torch.cat([images[:1], _images(5, seed=1)])
    assert torch.allclose(augment(images, draws)[0], augment(others, draws)[0], atol=1e-5)


@pytest.mark.parametrize("word", STRONGEST)
def test_images_are_never_changed_in_place(word):
    images = _images()
    augment(images, _draws(word))
    assert torch.equal(images, _images())


def test_the_generator_is_the_only_source_of_randomness():
    torch.manual_seed(1)
    first = augment(_images(), _draws(STRONGEST))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, augment(_images(), _draws(STRONGEST)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, augment(_images(), _draws(STRONGEST, seed=1)))


def test_operations_are_applied_from_left_to_right():
    draws = _draws("translation:1,color")
    one_by_one = _images()
    for drawn in draws.operations:
        one_by_one = augment(one_by_one, Draws((drawn,), 6))
    assert [drawn.name for drawn in draws.operations] == ["translation", "color"]
    assert torch.equal(augment(_images(), draws), one_by_one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("word", STRONGEST)
def test_the_dtype_is_kept_and_the_result_is_the_same(word, dtype):
    draws = _draws(word)
    changed = augment(_images().to(dtype), draws)
    assert changed.dtype == dtype
    assert torch.allclose(changed.float(), augment(_images(), draws), atol=0.1, rtol=0.02)


@pytest.mark.parametrize("word", STRONGEST)
def test_autocast_rounds_no_pixel(word):
    images, draws = _images(), _draws(word)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = augment(images, draws)
    assert torch.equal(inside, augment(images, draws))


def test_draws_for_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match="5 images, but draws for 6"):
        augment(_images(5), _draws(""))


@pytest.mark.parametrize("resolution", [8, 11, 32, 48])
def test_all_operations_work_at_any_resolution(resolution):
    changed = augment(_images(4, resolution), _draws(STRONGEST, 4, resolution))
    assert changed.shape == (4, 3, resolution, resolution)
    assert changed.isfinite().all()


# Colour and hue.


def test_color_is_brightness_then_saturation_then_contrast():
    images, draws = _images(), _draws("color")
    brightness, saturation, contrast = draws.operations[0].values.view(6, 3, 1, 1, 1).unbind(1)
    x = images + brightness
    grey = x.mean(dim=1, keepdim=True)
    x = saturation * (x - grey) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(augment(images, draws), contrast * (x - mean) + mean, atol=1e-5)


@pytest.mark.parametrize("word", ["color", "hue:1"])
def test_colours_are_computed_in_fp32_and_rounded_once(word):
    images, draws = _images().bfloat16(), _draws(word)
    assert torch.equal(augment(images, draws), augment(images.float(), draws).bfloat16())


def test_color_stays_within_the_released_ranges_and_fills_them():
    values = _draws("color", 4000).operations[0].values
    for column, (low, high) in enumerate([(-0.5, 0.5), (0, 2), (0.5, 1.5)]):
        assert low <= values[:, column].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values[:, column].max() <= high
        assert values[:, column].mean().item() == pytest.approx((low + high) / 2, abs=0.03)


def test_hue_leaves_grey_alone_and_keeps_luma_and_norm():
    images, draws = _images(), _draws("hue:1")
    changed = augment(images, draws)
    assert torch.allclose(changed.mean(dim=1), images.mean(dim=1), atol=1e-5)
    assert torch.allclose(changed.norm(dim=1), images.norm(dim=1), atol=1e-5)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(augment(grey, draws), grey, atol=1e-5)


def test_a_third_of_a_turn_of_hue_moves_red_to_green_to_blue():
    images = _images(1)
    turned = augment(images, _by_hand("hue", [2 * math.pi / 3]))
    assert torch.allclose(turned, images.roll(1, dims=1), atol=1e-5)


def test_hue_turns_half_of_the_images_by_any_angle():
    angles = _draws("hue", 4000).operations[0].values
    assert (angles != 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert -math.pi <= angles.min() < -3.1
    assert 3.1 < angles.max() <= math.pi


# Translation and erasing.


@pytest.mark.parametrize(("policy", "largest"), [("translation", 6), ("translation:0.125", 4)])
def test_translation_reaches_its_ratio_and_never_exceeds_it(policy, largest):
    dot = torch.zeros(1, 1, 32, 32)
    dot[..., 16, 16] = 1
    moved = augment(dot.expand(2000, 3, -1, -1), _draws(policy, 2000, 32))
    places = moved[:, 0].nonzero()[:, 1:] - 16
    assert len(places) == 2000
    assert places.amin(dim=0).tolist() == [-largest, -largest]
    assert places.amax(dim=0).tolist() == [largest, largest]
    assert places.float().mean(dim=0).abs().max() < 0.4


def test_translation_moves_pixels_unchanged_and_pads_with_zeros():
    images = _images(1)
    moved = augment(images, _by_hand("translation", [2, -3]))
    assert torch.equal(moved[..., :-2, 3:], images[..., 2:, :-3])
    assert moved[..., -2:, :].abs().max() == moved[..., :3].abs().max() == 0


def _erased(policy: str, resolution: int, seed: int) -> torch.Tensor:
    return augment(torch.ones(32, 1, resolution, resolution), _draws(policy, 32, resolution, seed))[:, 0] == 0


def _sides(erased: torch.Tensor) -> tuple[int, int]:
    # The largest over the batch: places at the border are clipped.
    return int(erased.any(dim=2).sum(dim=1).max()), int(erased.any(dim=1).sum(dim=1).max())


@pytest.mark.parametrize("resolution", [15, 32])
def test_cutout_erases_one_half_size_square_per_image(resolution):
    erased = _erased("cutout:1", resolution, 0)
    side = (resolution + 1) // 2
    assert _sides(erased) == (side, side)
    rectangles = erased.any(dim=2).sum(dim=1) * erased.any(dim=1).sum(dim=1)
    assert torch.equal(erased.sum(dim=(1, 2)), rectangles)
    assert rectangles.min() >= (side // 2) ** 2


@pytest.mark.parametrize("name", ["cutout", "erase_ratio", "stl_erase_ratio"])
def test_erasing_hits_the_whole_batch_three_times_in_ten_or_nobody(name):
    hits = [_erased(name, 32, seed).any(dim=2).any(dim=1) for seed in range(300)]
    assert all(hit.all() or not hit.any() for hit in hits)
    assert sum(bool(hit.any()) for hit in hits) / 300 == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize(("name", "low", "high"), [("erase_ratio", 9, 33), ("stl_erase_ratio", 20, 44)])
def test_erased_sides_are_drawn_once_a_batch_within_their_range(name, low, high):
    sides = {_sides(_erased(f"{name}:1", 48, seed)) for seed in range(200)}
    assert {min(pair[axis] for pair in sides) for axis in (0, 1)} <= {low, low + 1}
    assert {max(pair[axis] for pair in sides) for axis in (0, 1)} <= {high, high - 1}
    assert any(height != width for height, width in sides)


# Frequency bands.


def test_the_wavelet_is_orthonormal_to_its_even_shifts():
    taps = np.array(ada.SYM2)
    correlation = np.correlate(taps, taps, "full")[len(taps) - 1 :: 2]
    assert correlation == pytest.approx([1.0] + [0.0] * (len(taps) // 2 - 1), abs=1e-11)
    assert taps.sum() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("resolution", [8, 32, 33])
def test_bands_add_up_to_the_image(resolution):
    total = ada.bands(resolution, CPU).sum(dim=0)
    assert torch.allclose(total, torch.eye(resolution), atol=1e-6)


def test_bands_rise_in_frequency_by_octaves():
    position = torch.arange(256) + 0.5
    waves = torch.stack([torch.cos(math.pi * share * position) for share in (0.04, 0.18, 0.36, 0.9)])
    power = (ada.bands(256, CPU) @ waves.T).square().sum(dim=1)  # (band, wave)
    assert power.argmax(dim=0).tolist() == [0, 1, 2, 3]


def test_filter_equals_the_two_channel_filter_bank_of_its_description():
    low = np.array(ada.SYM2)
    high = low * (-1.0) ** np.arange(4)
    low2, high2 = (np.convolve(taps, taps[::-1]) / 2 for taps in (low, high))
    bank = [np.ones(1)]
    for _ in range(3):  # each octave: spread the coarser bands, smooth them, add the next detail
        spread = [np.insert(taps, range(1, len(taps)), 0) for taps in bank]
        bank = [np.convolve(taps, low2) for taps in spread] + [high2]
    gains = np.array([0.5, 2.0, 4.0, 1.0])
    taps = sum(gain * np.pad(band, (43 - len(band)) // 2) for gain, band in zip(gains, bank, strict=True))
    kernel = torch.tensor(np.outer(taps, taps), dtype=torch.float32)[None, None]
    images = _images(1, 32)
    expected = F.conv2d(F.pad(images.transpose(0, 1), [21] * 4, mode="reflect"), kernel).transpose(0, 1)
    power = np.prod([1 + e / 13 * (gain**2 - 1) for e, gain in zip([10, 1, 1, 1], gains, strict=True)])
    changed = augment(images, _by_hand("filter", np.log2(gains).tolist()))
    assert torch.allclose(changed * power, expected, atol=1e-4)  # two axes: the square of its root


def test_filter_of_equal_gains_does_nothing():
    images = _images()
    changed = augment(images, _by_hand("filter", *[[0.0] * 4] * 6))
    assert torch.allclose(changed, images, atol=1e-5)


def test_filter_changes_a_quarter_of_the_bands_by_octaves_of_gain():
    gains = _draws("filter", 4000).operations[0].values
    assert (gains != 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert gains[gains != 0].std().item() == pytest.approx(1, abs=0.03)
