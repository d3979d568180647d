"""Distances, matching and selection of strokes, against values worked out by hand or by another way."""

from __future__ import annotations

import itertools

import pytest
import torch

from gtool.losses.matching import match
from gtool.losses.strokes import (
    angle_distance,
    covariance,
    mean_color,
    paint_in_turn,
    parameter_distance,
    select_by_gain,
    wasserstein,
)


def random_strokes(*shape, seed=0):
    return 0.05 + 0.9 * torch.rand(*shape, 5, generator=torch.Generator().manual_seed(seed))


def matrix(stroke):
    xx, xy, yy = covariance(stroke.double())
    return torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)


def root(matrices):
    values, vectors = torch.linalg.eigh(matrices)
    return vectors @ torch.diag_embed(values.clamp(min=0).sqrt()) @ vectors.transpose(-1, -2)


def test_the_covariance_turns_with_the_stroke():
    upright, lying = torch.tensor([0.5, 0.5, 0.2, 0.8, 0.0]), torch.tensor([0.5, 0.5, 0.8, 0.2, 0.5])
    torch.testing.assert_close(torch.stack(covariance(upright)), torch.tensor([0.01, 0.0, 0.16]))
    torch.testing.assert_close(
        torch.stack(covariance(lying)), torch.tensor([0.01, 0.0, 0.16]), atol=1e-7, rtol=0
    )


def test_wasserstein_equals_the_definition_with_matrix_roots():
    a, b = random_strokes(50), random_strokes(50, seed=1)
    first, second = matrix(a), matrix(b)
    middle = root(root(first) @ second @ root(first))
    trace = (first + second - 2 * middle).diagonal(dim1=-2, dim2=-1).sum(-1)
    expected = (a[:, :2] - b[:, :2]).double().square().sum(-1) + trace
    torch.testing.assert_close(wasserstein(a, b).double(), expected, rtol=1e-3, atol=1e-4)


def test_wasserstein_of_equal_strokes_is_zero_with_finite_slopes():
    strokes = random_strokes(8).requires_grad_()
    value = wasserstein(strokes, strokes.detach())
    value.sum().backward()
    assert value.abs().max() < 1e-4
    assert strokes.grad.isfinite().all()


@pytest.mark.parametrize("sides", [(0.0, 0.0), (0.0, 0.4)])
def test_a_stroke_without_area_has_finite_slopes(sides):
    """The released distance has a root of zero there, whose slope is not a number."""
    flat = torch.tensor([0.5, 0.5, *sides, 0.3], requires_grad=True)
    wasserstein(flat, random_strokes(1)[0]).backward()
    assert flat.grad.isfinite().all()


def test_angles_are_periodic():
    apart = angle_distance(torch.tensor([0.02, 0.98, 0.25, 1.7]), torch.tensor([0.98, 0.02, 0.75, -0.3]))
    torch.testing.assert_close(apart, torch.tensor([0.04, 0.04, 0.5, 0.0]), atol=1e-6, rtol=0)


def test_angles_of_squares_do_not_count():
    square, line = torch.tensor([0.5, 0.5, 0.3, 0.3, 0.0]), torch.tensor([0.5, 0.5, 0.0, 0.3, 0.0])
    turned = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.5])
    assert parameter_distance(square + turned, square)[1] == pytest.approx(0, abs=1e-6)
    assert parameter_distance(line + turned, line)[1] == pytest.approx(0.5, abs=1e-6)


def test_matching_is_the_best_of_all_permutations():
    proposed, given = random_strokes(2, 4), random_strokes(2, 3, seed=1)
    logits = torch.tensor([[0.0, 1.0, -1.0, 0.5], [2.0, -2.0, 0.0, 0.0]])
    valid = torch.tensor([[True, True, True], [True, False, True]])
    sides, angles = parameter_distance(proposed[:, :, None], given[:, None])
    distance = wasserstein(proposed[:, :, None], given[:, None])
    cost = sides + angles + 2 * distance + 1 - logits.sigmoid()[..., None]
    patch, place, number = match(proposed, logits, given, valid)
    for n in range(2):
        here = patch == n
        columns = valid[n].nonzero().flatten().tolist()
        assert sorted(number[here].tolist()) == columns
        least = min(
            sum(float(cost[n, row, column]) for row, column in zip(rows, columns, strict=True))
            for rows in itertools.permutations(range(4), len(columns))
        )
        assert float(cost[n, place[here], number[here]].sum()) == pytest.approx(least, rel=1e-5)


def test_a_patch_without_strokes_matches_nothing():
    patch, _, _ = match(random_strokes(1, 4), torch.zeros(1, 4), random_strokes(1, 2), torch.zeros(1, 2) > 0)
    assert len(patch) == 0


def scene(n=3, proposals=6, pixels=40, seed=0):
    random = torch.Generator().manual_seed(seed)
    mask = torch.rand(n, proposals, pixels, generator=random) * (
        torch.rand(n, proposals, pixels, generator=random) < 0.4
    )
    return mask, torch.rand(n, 3, pixels, generator=random), torch.rand(n, 3, pixels, generator=random)


def test_gains_are_what_painting_the_stroke_gains():
    mask, target, canvas = scene()
    colors = mean_color(mask, target)
    chosen, gains = select_by_gain(mask, target, canvas, 3)
    for n in range(3):
        now = canvas[n]
        for k in range(3):
            after = now + mask[n][:, None] * (colors[n][..., None] - now)  # (S, 3, P)
            gained = (now - target[n]).square().sum() - (after - target[n]).square().sum(dim=(1, 2))
            best = int(gained.argmax())
            assert int(chosen[n, k]) == best
            assert float(gains[n, k]) == pytest.approx(max(0.0, float(gained[best])), rel=1e-3, abs=1e-4)
            now = after[best] if gained[best] > 0 else now


def test_strokes_that_would_hurt_gain_nothing():
    mask, target, _ = scene()
    _, gains = select_by_gain(mask, target, target.clone(), 2)
    assert float(gains.max()) == 0.0


def test_painting_in_turn_lets_later_strokes_cover_earlier_ones():
    full = torch.ones(1, 2, 4)
    colors = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    canvas = torch.zeros(1, 3, 4)
    both = paint_in_turn(full, full, colors, canvas, torch.tensor([[True, True]]))
    assert both[0][0, :, 0].tolist() == [1, 0, 0]
    assert both[1][0, :, 0].tolist() == [0, 0, 1]
    first = paint_in_turn(full, full, colors, canvas, torch.tensor([[True, False]]))
    assert first[1][0, :, 0].tolist() == [1, 0, 0]
