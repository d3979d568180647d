"""Codes sampled from a prior: parameters, known codes, windows."""

from __future__ import annotations

import pytest
import torch

from gtool.errors import RecipeError
from gtool.models.prior.config import SamplingParams
from gtool.models.prior.network import for_sampling
from gtool.models.prior.sampling import UNKNOWN, draw, uniform_numbers, waves, window_start
from tests.helpers.priors import make, sample

NONE = torch.zeros(4, 1, dtype=torch.int64)
FOUR = torch.arange(4)


def unknown(count: int, size: tuple[int, int] = (3, 4)) -> torch.Tensor:
    return torch.full((count, *size), UNKNOWN)


def plainly(prior, condition, params, seed=3, index=0):
    """One image without a cache: every code from a full forward pass."""
    uniform = uniform_numbers(seed, torch.tensor([index]), (1, 12))[:, 0]
    codes = torch.zeros(1, 12, dtype=torch.int64)  # in order
    for place, cell in enumerate(prior.cells.tolist()):
        codes[:, place] = draw(prior(condition, codes)[:, place], uniform[:, cell], params)
    return codes[:, prior.cells.argsort()].view(1, *prior.config.grid)


@pytest.mark.parametrize("order", ["raster", "spiral-out"])
@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0.7, 4, 0.9), SamplingParams(0.0)])
def test_codes_are_those_of_full_forward_passes(order, params):
    prior = make(order=order)
    codes = sample(prior, NONE, 3, FOUR, params)
    for index in range(4):
        assert torch.equal(codes[index : index + 1], plainly(prior, NONE[:1], params, index=index))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_depends_on_its_number_alone(dtype):
    prior = for_sampling(make(width=64, condition="class", condition_size=3), dtype)
    condition = torch.tensor([[0], [1], [2], [1], [0]])
    together = sample(prior, condition, 3, torch.arange(5))
    alone = sample(prior, condition[3:4], 3, torch.tensor([3]))
    assert torch.equal(alone[0], together[3])
    assert len({tuple(codes.flatten().tolist()) for codes in together}) == 5
    assert not torch.equal(together, sample(prior, condition, 4, torch.arange(5)))


def test_the_callback_sees_one_more_cell_at_a_time_of_every_batch():
    seen = []
    sample(
        make(),
        NONE[:3],
        0,
        torch.arange(3),
        batch_size=2,
        callback=lambda done, total, decided: seen.append((done, total, int(decided.sum()))),
    )
    assert seen == [(2 * n, 36, n) for n in range(1, 13)] + [(24 + n, 36, n) for n in range(1, 13)]


def test_codes_follow_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    chance = (torch.arange(10_000) + 0.5) / 10_000
    drawn = draw(logits.expand(10_000, -1), chance, SamplingParams(temperature=0.5))
    shares = torch.bincount(drawn, minlength=4) / 10_000
    torch.testing.assert_close(shares, (logits / 0.5).softmax(-1)[0], atol=2e-4, rtol=0)


PARAMS = {
    "top-k": (SamplingParams(top_k=2), {1, 3}),
    "top-k of one": (SamplingParams(top_k=1), {3}),
    "top-p": (SamplingParams(top_p=0.7), {1, 3}),  # probabilities .09 .24 .03 .64
    "top-p of the likeliest": (SamplingParams(top_p=0.6), {3}),
    "top-p of all": (SamplingParams(top_p=1.0), {0, 1, 2, 3}),
    "top-p inside of top-k": (SamplingParams(top_k=2, top_p=0.7), {3}),  # .27 .73
    "all": (SamplingParams(top_k=4), {0, 1, 2, 3}),
    "greedy": (SamplingParams(temperature=0), {3}),
}


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-39, 1e-20])
@pytest.mark.parametrize("top_k", [None, 2])
def test_the_coldest_temperatures_take_the_likeliest_code(temperature, top_k):
    logits = torch.tensor([[1.0, 5.0, 3.0], [9.0, -2.0, 8.9]])
    assert draw(logits, torch.ones(2), SamplingParams(temperature, top_k)).tolist() == [1, 0]


@pytest.mark.parametrize("name", PARAMS)
def test_only_allowed_codes_are_drawn(name):
    params, allowed = PARAMS[name]
    chance = torch.linspace(0, 1, 1000)
    drawn = draw(torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(1000, -1), chance, params)
    assert set(drawn.tolist()) == allowed


BAD = {
    "temperature -1": SamplingParams(temperature=-1.0),
    "temperature nan": SamplingParams(temperature=float("nan")),
    "top-k 12: the codebook has 11 codes": SamplingParams(top_k=12),
    "top-k 0": SamplingParams(top_k=0),
    "top-p 0": SamplingParams(top_p=0.0),
    "top-p 1.5": SamplingParams(top_p=1.5),
}


@pytest.mark.parametrize("message", BAD)
def test_params_out_of_range_are_refused_in_one_line(message):
    with pytest.raises(RecipeError, match=message) as refused:
        sample(make(), NONE, 0, FOUR, BAD[message])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("order", ["raster", "spiral-out"])
def test_known_codes_stay_and_the_first_ones_are_believed(order):
    prior = make(order=order)
    free = sample(prior, NONE, 3, FOUR)
    kept = torch.zeros(12, dtype=torch.bool)
    kept[prior.cells[:5]] = True
    kept = kept.view(3, 4)
    # An image's own first codes change nothing.
    assert torch.equal(sample(prior, NONE, 3, FOUR, known=torch.where(kept, free, UNKNOWN)), free)
    other = (free + 1) % 11
    completed = sample(prior, NONE, 3, FOUR, known=torch.where(kept, other, UNKNOWN))
    assert torch.equal(completed[:, kept], other[:, kept])
    assert not torch.equal(completed[:, ~kept], free[:, ~kept])


def test_codes_known_later_in_the_order_stay_as_given():
    prior = make()
    free = sample(prior, NONE, 3, FOUR)
    kept = torch.zeros(3, 4, dtype=torch.bool)
    kept[1, 1] = kept[2, 2:] = True
    other = (free + 1) % 11
    completed = sample(prior, NONE, 3, FOUR, known=torch.where(kept, other, UNKNOWN))
    assert torch.equal(completed[:, kept], other[:, kept])
    assert torch.equal(completed.flatten(1)[:, :5], free.flatten(1)[:, :5])  # before the first of them


def test_an_image_that_is_known_comes_back():
    codes = torch.randint(11, (4, 3, 4))
    assert torch.equal(sample(make(), NONE, 3, FOUR, known=codes), codes)


def released_local(i: int, length: int) -> int:
    """The rule of scripts/make_samples.py along one axis, for windows of 16."""
    if i <= 8:
        return i
    return 16 - (length - i) if length - i < 8 else 8


@pytest.mark.parametrize("length", [16, 17, 24, 29, 32, 61])
def test_windows_are_placed_as_released(length):
    assert [i - window_start(i, length, 16) for i in range(length)] == [
        released_local(i, length) for i in range(length)
    ]


@pytest.mark.parametrize("condition", ["none", "segmentation"])
@pytest.mark.parametrize("size", [(3, 9), (7, 4), (6, 7)])
def test_larger_pictures_follow_the_window_rule(condition, size):
    """Against the rule in its plainest form: every cell from all codes of its window, none cached."""
    prior = make(condition=condition, condition_size=5 if condition == "segmentation" else 1)
    given = torch.randint(5, (2, *size)) if condition == "segmentation" else NONE[:2]
    uniform = uniform_numbers(3, FOUR[:2], size)
    expected = torch.zeros(2, *size, dtype=torch.int64)
    for i in range(size[0]):
        for j in range(size[1]):
            top, left = window_start(i, size[0], 3), window_start(j, size[1], 4)
            rows, columns = slice(top, top + 3), slice(left, left + 4)
            seen = given[:, rows, columns] if condition == "segmentation" else given
            logits = prior(seen, expected[:, rows, columns])[:, (i - top) * 4 + j - left]
            expected[:, i, j] = draw(logits, uniform[:, i, j], SamplingParams())
    assert torch.equal(sample(prior, given, 3, FOUR[:2], size=size, batch_size=2), expected)


@pytest.mark.parametrize(("height", "width", "across"), [(8, 11, 4), (3, 9, 4), (7, 4, 4), (5, 2, 2)])
def test_waves_have_every_cell_once_and_after_all_that_its_window_shows(height, width, across):
    time = {cell: number for number, wave in enumerate(waves(height, width, across)) for cell in wave}
    assert sorted(time) == [(i, j) for i in range(height) for j in range(width)]
    assert sum(map(len, waves(height, width, across))) == height * width
    for (i, j), now in time.items():
        left = window_start(j, width, across)
        shown = [(i - 1, left + across - 1)] if i else []
        shown += [(i, j - 1)] if j else []
        assert all(time[cell] < now for cell in shown)


def test_a_larger_picture_is_the_same_beside_others_and_some_of_it_can_be_known():
    prior, size = make(condition="segmentation", condition_size=5), (6, 9)
    maps = torch.randint(5, (4, *size))
    together = sample(prior, maps, 3, FOUR, size=size)
    alone = sample(prior, maps[2:3], 3, FOUR[2:3], size=size)
    assert torch.equal(together[2:3], alone)
    known = together.clone()
    known[:, 2:] = UNKNOWN
    assert torch.equal(sample(prior, maps, 3, FOUR, known=known), together)


MIXED = torch.cat([unknown(3), torch.zeros(1, 3, 4, dtype=torch.int64)])
BAD_INPUTS = {
    "fewer than the 3 x 4": ({}, NONE, unknown(4, (2, 9))),
    "larger images need the order `raster`": ({"order": "z-curve"}, NONE, unknown(4, (3, 9))),
    "ids from 0 to 0": ({}, NONE + 1, unknown(4)),
    "needs ids of shape": ({"condition": "segmentation", "condition_size": 5}, NONE, unknown(4)),
    "known codes must be of this codebook of 11": ({}, NONE, torch.full((4, 3, 4), 11)),
    "the same cells must be known": ({}, NONE, MIXED),
}


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_what_does_not_fit_the_prior_is_refused_in_one_line(message):
    changes, condition, codes = BAD_INPUTS[message]
    with pytest.raises(RecipeError, match=message) as refused:
        sample(make(**changes), condition, 0, FOUR, known=codes)
    assert "\n" not in str(refused.value)
