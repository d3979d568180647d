"""The pipeline of StyleGAN2-ADA: what each change does, how often and how far, and its exactness."""

from __future__ import annotations

import math

import pytest
import torch

from gtool.losses.penalties import zero_centred
from gtool.train.augment import ada
from gtool.train.augment.augment import augment, draw
from gtool.train.augment.policies import OPERATIONS, parse_policy

ADA = [name for name in OPERATIONS if name.startswith("ada")]
N = 8000


def _images(n: int = 4, resolution: int = 16) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, resolution, resolution, generator=random) * 2 - 1


def _draws(policy: str, n: int = 4, resolution: int = 16, p: float = 1.0):
    return draw(parse_policy(policy), n, resolution, torch.Generator().manual_seed(0), p)


def _chances(p: float, n: int = N) -> ada.Chances:
    return ada.Chances(n, 32, torch.Generator().manual_seed(1), p)


def _move(images: torch.Tensor, rows: list[list[float]]) -> torch.Tensor:
    return ada.move(images, torch.tensor(rows).expand(len(images), 2, 3))


def _share(hit: torch.Tensor) -> float:
    return hit.float().mean().item()


# The probability.


@pytest.mark.parametrize("policy", [*ADA, "color,translation", "ada,cutout:1,hue:1"])
def test_with_probability_zero_nothing_is_touched(policy):
    images = _images()
    assert torch.equal(augment(images, _draws(policy, p=0.0)), images)


def test_probability_one_is_what_there_was_before_there_was_one():
    policy = parse_policy("filter,translation,erase_ratio:1,color,hue")
    first, second = (
        draw(policy, 6, 16, torch.Generator().manual_seed(3), *p).operations for p in ((), (1.0,))
    )
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.values, b.values)
        assert a.is_hit is b.is_hit is None


def test_every_operation_hits_each_image_with_the_probability():
    images = _images(1, 8).expand(N // 4, -1, -1, -1)
    for policy in ("color", "translation:1", "cutout:1"):
        changed = augment(images, _draws(policy, N // 4, 8, p=0.25))
        hit = (changed != images).flatten(1).any(dim=1)
        assert _share(hit) == pytest.approx(0.25, abs=0.05), policy
        # A share of the draws keeps to the same images.
        assert torch.equal(augment(images[5:9], _draws(policy, N // 4, 8, p=0.25)[5:9]), changed[5:9])


def test_blits_are_as_often_and_as_far_as_published():
    maps = ada.blit(_chances(0.4))
    turned, shift = maps[:, :2, :2], maps[:, :2, 2]
    assert torch.equal(turned.abs().sum(dim=(1, 2)), torch.full((N,), 2.0))
    assert torch.equal(shift, shift.round())
    assert shift.abs().max() == 4
    assert _share(torch.linalg.det(turned) < 0) == pytest.approx(0.4 / 2, abs=0.02)
    # Half of the mirrored and three quarters of the turned differ from the identity.
    assert _share((turned == torch.eye(2)).all(2).all(1)) == pytest.approx(0.8 * 0.7, abs=0.02)
    assert _share((shift != 0).any(dim=1)) == pytest.approx(0.4, abs=0.02)


def test_geometry_is_as_often_and_as_far_as_published():
    maps = ada.geometric(_chances(0.3))
    area = torch.linalg.det(maps[:, :2, :2])
    scale = -area.log2() / 2
    scaled = scale.abs() > 1e-5
    assert _share(scaled) == pytest.approx(0.3, abs=0.02)
    assert scale[scaled].std().item() == pytest.approx(0.2, abs=0.01)
    stretch = torch.linalg.svdvals(maps[:, :2, :2])
    stretch = (stretch[:, 0] / stretch[:, 1]).log2() / 2
    stretched = stretch > 1e-4
    assert _share(stretched) == pytest.approx(0.3, abs=0.02)
    assert stretch[stretched].square().mean().sqrt().item() == pytest.approx(0.2, abs=0.01)
    # Turned once or twice with the probability of any other change.
    assert _share(maps[:, 0, 1].abs() > 1e-6) == pytest.approx(0.3, abs=0.02)
    shifted = (maps[:, :2, 2] != 0).any(dim=1)
    assert _share(shifted) == pytest.approx(0.3, abs=0.02)
    plain = shifted & ~scaled & ~stretched
    assert maps[plain, :2, 2].std().item() == pytest.approx(0.125 * 32, rel=0.05)


def test_colours_change_as_often_and_as_far_as_published():
    maps = ada.colour(_chances(0.3))
    along = maps[:, :3, :3].sum(dim=(1, 2)) / 3  # on the grey axis: contrast, inverted or not
    assert _share(along < 0) == pytest.approx(0.3 / 2, abs=0.02)
    contrast = along.abs().log2()
    assert _share(contrast.abs() > 1e-5) == pytest.approx(0.3, abs=0.02)
    assert contrast[contrast.abs() > 1e-5].std().item() == pytest.approx(0.5, abs=0.03)
    brightness = maps[:, 0, 3] / along
    assert _share(brightness.abs() > 1e-6) == pytest.approx(0.3, abs=0.02)
    assert brightness[brightness.abs() > 1e-6].std().item() == pytest.approx(0.2, abs=0.01)
    across = torch.linalg.det(maps[:, :3, :3]).abs() / along.abs()  # (contrast x saturation)^2
    saturation = across.log2() / 2 - contrast
    assert _share(saturation.abs() > 1e-4) == pytest.approx(0.3, abs=0.02)
    assert saturation[saturation.abs() > 1e-4].std().item() == pytest.approx(1.0, abs=0.05)


# Geometry.


def test_wavelets_undo_each_other():
    up, down = (torch.tensor([*taps[:0:-1], *taps], dtype=torch.float64) for taps in (ada.UP, ada.DOWN))
    for shift in range(4):  # of pixels, two taps each
        place = 4 - 2 * shift  # of the middle of `up` among the taps of `down`
        product = sum(up[3 + k] * down[place + k] for k in range(-3, 4) if 0 <= place + k < len(down))
        assert float(product) == pytest.approx(1.0 if shift == 0 else 0.0, abs=1e-12)
    assert up.sum().item() == pytest.approx(2.0)
    assert down.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("resolution", [8, 16, 33])
def test_blits_move_pixels_exactly(resolution):
    images = _images(2, resolution)
    assert torch.allclose(_move(images, [[1.0, 0, 0], [0, 1.0, 0]]), images, atol=1e-5)
    assert torch.allclose(_move(images, [[-1.0, 0, 0], [0, 1.0, 0]]), images.flip(3), atol=1e-5)
    turned = torch.rot90(images, 1, (2, 3))
    assert torch.allclose(_move(images, [[0, -1.0, 0], [1.0, 0, 0]]), turned, atol=1e-5)
    moved = _move(images, [[1.0, 0, 2], [0, 1.0, -1]])  # from 2 to the right and 1 above
    assert torch.allclose(moved[..., 1:, :-2], images[..., :-1, 2:], atol=1e-5)
    # Beyond the border an image goes on mirrored about its last pixel.
    assert torch.allclose(moved[..., 1:, -2:], images[..., :-1, [-2, -3]], atol=1e-5)


@pytest.mark.parametrize("degrees", [0, 30, 200])
@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_turning_and_scaling_are_about_the_middle(degrees, scale):
    position = torch.arange(64) - 31.5
    y, x = torch.meshgrid(position, position, indexing="ij")

    def blob(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(((x - 6) / 9) ** 2) - ((y + 3) / 5) ** 2).expand(1, 3, -1, -1)

    c, s = (f(math.radians(degrees)) / scale for f in (math.cos, math.sin))
    changed = _move(blob(x, y), [[c, s, 1.5], [-s, c, -2.25]])
    from_x, from_y = c * x + s * y + 1.5, -s * x + c * y - 2.25
    is_inside = (from_x.abs() < 31) & (from_y.abs() < 31)  # elsewhere is its mirror image
    assert ((changed - blob(from_x, from_y)).abs() * is_inside).max() < 0.01


def test_a_border_without_end_serves_any_shift():
    images = _images(1, 8)
    assert torch.allclose(_move(images, [[1.0, 0, 28], [0, 1.0, 0]]), images, atol=1e-4)  # two periods of 14


def test_geometry_keeps_to_the_range_of_images_but_for_ringing():
    images = _images(64).sign()
    assert augment(images, _draws("ada-blit", 64)).abs().max() < 1 + 1e-4
    changed = augment(images, _draws("ada-geometric", 64))
    assert changed.abs().max() < 2.5
    assert changed.square().mean() < images.square().mean()


# Colour.


def _one(**chosen: float) -> torch.Tensor:
    """A colour map of which each change is as chosen, in the order in which they are drawn."""
    order = {"brightness": 0.0, "contrast": 0.0, "inverted": 1.0, "hue": 0.5, "saturation": 0.0}
    numbers = {**order, **chosen}
    normal = iter([numbers["brightness"] / 0.2, numbers["contrast"] / 0.5, numbers["saturation"]])
    # Each change draws its value, where it is uniform, and then whether it is there.
    uniform = iter([0.0, 0.0, numbers["inverted"], 0.0, numbers["hue"], 0.0, 0.0])

    class Chosen(ada.Chances):
        def uniform(self):
            return torch.tensor([next(uniform)])

        def normal(self):
            return torch.tensor([next(normal)])

    return ada.colour(Chosen(1, 32, torch.Generator()))[:, :3]


def test_brightness_contrast_and_saturation_are_about_black_grey_and_grey():
    images = _images(1)
    grey = images.mean(dim=1, keepdim=True)
    assert torch.allclose(ada.change_colours(images, _one(brightness=0.3)), images + 0.3, atol=1e-5)
    assert torch.allclose(ada.change_colours(images, _one(contrast=1.0)), 2 * images, atol=1e-5)
    saturated = ada.change_colours(images, _one(saturation=1.0))
    assert torch.allclose(saturated, grey + 2 * (images - grey), atol=1e-5)


def test_inverted_luma_keeps_hue_and_hue_keeps_luma():
    images = _images(1)
    grey = images.mean(dim=1, keepdim=True)
    inverted = ada.change_colours(images, _one(inverted=0.0))
    assert torch.allclose(inverted, images - 2 * grey, atol=1e-5)
    third = ada.change_colours(images, _one(hue=0.5 + 1 / 3))  # of a turn: red to green to blue
    assert torch.allclose(third, images.roll(1, dims=1), atol=1e-5)


def test_brightness_comes_before_contrast_and_contrast_before_inversion():
    images = _images(1)
    changed = ada.change_colours(images, _one(brightness=0.3, contrast=1.0, inverted=0.0))
    bright = 2 * (images + 0.3)
    assert torch.allclose(changed, bright - 2 * bright.mean(dim=1, keepdim=True), atol=1e-5)


# As part of a policy.


def test_words_that_follow_each_other_become_one_sampling(monkeypatch):
    calls = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr(ada.F, "grid_sample", lambda *a, **k: calls.append(1) or sample(*a, **k))
    augment(_images(), _draws("ada-blit,ada-geometric,ada-color"))
    assert calls == [1]
    assert [drawn.name for drawn in _draws("ada-blit,ada-color,cutout:1,ada").operations] == [
        "ada",
        "cutout",
        "ada",
    ]


def test_blits_come_before_geometry(monkeypatch):
    mirror, right = torch.eye(3), torch.eye(3)
    mirror[0, 0], right[0, 2] = -1.0, -2.0  # what is shown comes from 2 pixels to the left
    monkeypatch.setattr(ada, "blit", lambda *_: mirror.expand(4, 3, 3))
    monkeypatch.setattr(ada, "geometric", lambda *_: right.expand(4, 3, 3))
    images = _images()
    changed = augment(images, _draws("ada-blit,ada-geometric"))
    assert torch.allclose(changed[..., 2:], images.flip(3)[..., :-2], atol=1e-5)


def test_one_word_is_the_three_in_a_row():
    images = _images()
    assert torch.equal(
        augment(images, _draws("ada")), augment(images, _draws("ada-blit,ada-geometric,ada-color"))
    )


def test_exact_penalties_see_the_images_before_the_pipeline():
    """Turned and mirrored pixels keep the norm of the gradient; a second derivative must come through sampling."""
    weight = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
    images = _images(64).requires_grad_()
    draws = _draws("ada-blit", 64)
    still = (draws.operations[0].values[:, [2, 5]] == 0).all(dim=1)  # not shifted over the border
    assert still.any()
    logits = (augment(images, draws) * weight).flatten(1).sum(1)
    (penalty,) = zero_centred([logits[still]], [images])
    expected = weight.square().sum() * still.float().mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach() * still.float().mean(), rtol=1e-3, atol=1e-3)


def test_adding_in_a_fixed_order_is_the_transpose_of_sampling_too():
    random = torch.Generator().manual_seed(3)
    samples = torch.rand(2, 3, 19, 19, generator=random)
    grid = 6 * torch.rand(2, 19, 19, 2, generator=random) - 3  # far beyond the mirrored borders
    shape = torch.Size((2, 3, 13, 13))
    images = torch.zeros(shape, requires_grad=True)
    ada._Sample.apply(images, grid).backward(samples)
    torch.testing.assert_close(ada._scatter_in_order(samples, grid, shape), images.grad, atol=2e-6, rtol=0)
