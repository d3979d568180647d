"""Codes drawn from a prior: chance, choice, known codes, windows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gtool.errors import RecipeError
from gtool.models.prior.autoregressive import Choice, Known, Request, composing, draw, waves, window_start
from gtool.models.prior.autoregressive import compose as compose_request
from tests.models.test_prior import make

CPU = SimpleNamespace(device=torch.device("cpu"), bf16=False)
HALF = SimpleNamespace(device=torch.device("cpu"), bf16=True)
NONE = torch.zeros(4, 1, dtype=torch.int64)
FOUR = torch.arange(4)


def compose(prior, condition, seed, indices, compute, *, batch_size=4, **options):
    return compose_request(prior, Request(condition, indices, seed, **options), compute, batch_size)


def plainly(prior, condition, choice, seed=3, index=0):
    """One image without a cache: every code from a full forward pass."""
    from gtool.runtime.random import hashed_uniform

    chances = torch.from_numpy(hashed_uniform(seed, torch.tensor([index]).numpy(), 12, "codes")).float()
    codes = torch.zeros(1, 12, dtype=torch.int64)  # in order
    for place, cell in enumerate(prior.cells.tolist()):
        codes[:, place] = draw(prior(condition, codes)[:, place], chances[:, cell], choice)
    return codes[:, prior.cells.argsort()].view(1, *prior.config.grid)


@pytest.mark.parametrize("order", ["raster", "spiral-out"])
@pytest.mark.parametrize("choice", [Choice(), Choice(0.7, 4, 0.9), Choice(0.0)])
def test_codes_are_those_of_full_forward_passes(order, choice):
    prior = make(order=order)
    codes = compose(prior, NONE, 3, FOUR, CPU, choice=choice)
    for index in range(4):
        assert torch.equal(codes[index : index + 1], plainly(prior, NONE[:1], choice, index=index))


@pytest.mark.parametrize("compute", [CPU, HALF], ids=["fp32", "bf16"])
def test_an_image_depends_on_its_number_alone(compute):
    prior = make(width=64, condition="class", condition_size=3)
    condition = torch.tensor([[0], [1], [2], [1], [0]])
    together = compose(prior, condition, 3, torch.arange(5), compute, batch_size=4)
    alone = compose(prior, condition[3:4], 3, torch.tensor([3]), compute, batch_size=4)
    assert torch.equal(alone[0], together[3])
    assert len({tuple(codes.flatten().tolist()) for codes in together}) == 5
    assert not torch.equal(together, compose(prior, condition, 4, torch.arange(5), compute, batch_size=4))


def test_progress_shows_one_more_code_at_a_time_and_ends():
    states = [
        (progress.first, progress.codes.shape[0], int(progress.decided.sum()), progress.done)
        for progress in composing(make(), Request(NONE[:3], torch.arange(3)), CPU, batch_size=2)
    ]
    expected = [(0, 2, n, n == 12) for n in range(1, 13)] + [(2, 1, n, n == 12) for n in range(1, 13)]
    assert states == expected


def test_codes_follow_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    chance = (torch.arange(10_000) + 0.5) / 10_000
    drawn = draw(logits.expand(10_000, -1), chance, Choice(temperature=0.5))
    shares = torch.bincount(drawn, minlength=4) / 10_000
    torch.testing.assert_close(shares, (logits / 0.5).softmax(-1)[0], atol=2e-4, rtol=0)


CHOICES = {
    "top-k": (Choice(top_k=2), {1, 3}),
    "top-k of one": (Choice(top_k=1), {3}),
    "top-p": (Choice(top_p=0.7), {1, 3}),  # probabilities .09 .24 .03 .64
    "top-p of the likeliest": (Choice(top_p=0.6), {3}),
    "top-p of all": (Choice(top_p=1.0), {0, 1, 2, 3}),
    "top-p inside of top-k": (Choice(top_k=2, top_p=0.7), {3}),  # .27 .73
    "all": (Choice(top_k=4), {0, 1, 2, 3}),
    "greedy": (Choice(temperature=0), {3}),
}


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-39, 1e-20])
@pytest.mark.parametrize("top_k", [None, 2])
def test_the_coldest_temperatures_take_the_likeliest_code(temperature, top_k):
    logits = torch.tensor([[1.0, 5.0, 3.0], [9.0, -2.0, 8.9]])
    assert draw(logits, torch.ones(2), Choice(temperature, top_k)).tolist() == [1, 0]


@pytest.mark.parametrize("name", CHOICES)
def test_only_allowed_codes_are_drawn(name):
    choice, allowed = CHOICES[name]
    chance = torch.linspace(0, 1, 1000)
    drawn = draw(torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(1000, -1), chance, choice)
    assert set(drawn.tolist()) == allowed


BAD = {
    "temperature -1": Choice(temperature=-1.0),
    "temperature nan": Choice(temperature=float("nan")),
    "top-k 12: the codebook has 11 codes": Choice(top_k=12),
    "top-k 0": Choice(top_k=0),
    "top-p 0": Choice(top_p=0.0),
    "top-p 1.5": Choice(top_p=1.5),
}


@pytest.mark.parametrize("message", BAD)
def test_a_choice_that_means_nothing_is_refused_in_one_line(message):
    with pytest.raises(RecipeError, match=message) as refused:
        compose(make(), NONE, 0, FOUR, CPU, choice=BAD[message])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("order", ["raster", "spiral-out"])
def test_known_codes_stay_and_the_first_ones_are_believed(order):
    prior = make(order=order)
    free = compose(prior, NONE, 3, FOUR, CPU)
    kept = torch.zeros(12, dtype=torch.bool)
    kept[prior.cells[:5]] = True
    # An image's own first codes change nothing.
    again = compose(prior, NONE, 3, FOUR, CPU, known=Known(free, kept.view(3, 4)))
    assert torch.equal(again, free)
    other = (free + 1) % 11
    completed = compose(prior, NONE, 3, FOUR, CPU, known=Known(other, kept.view(3, 4)))
    assert torch.equal(completed[:, kept.view(3, 4)], other[:, kept.view(3, 4)])
    assert not torch.equal(completed[:, ~kept.view(3, 4)], free[:, ~kept.view(3, 4)])


def test_codes_known_later_in_the_order_stay_as_given():
    prior = make()
    free = compose(prior, NONE, 3, FOUR, CPU)
    kept = torch.zeros(3, 4, dtype=torch.bool)
    kept[1, 1] = kept[2, 2:] = True
    other = (free + 1) % 11
    completed = compose(prior, NONE, 3, FOUR, CPU, known=Known(other, kept))
    assert torch.equal(completed[:, kept], other[:, kept])
    assert torch.equal(completed.flatten(1)[:, :5], free.flatten(1)[:, :5])  # before the first of them


def test_a_picture_that_is_known_comes_back():
    codes = torch.randint(11, (4, 3, 4))
    kept = torch.ones(3, 4, dtype=torch.bool)
    assert torch.equal(compose(make(), NONE, 3, FOUR, CPU, known=Known(codes, kept)), codes)


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
    from gtool.runtime.random import hashed_uniform

    prior = make(condition=condition, condition_size=5 if condition == "segmentation" else 1)
    given = torch.randint(5, (2, *size)) if condition == "segmentation" else NONE[:2]
    chances = torch.from_numpy(hashed_uniform(3, FOUR[:2].numpy(), size[0] * size[1], "codes")).float()
    expected = torch.zeros(2, *size, dtype=torch.int64)
    for i in range(size[0]):
        for j in range(size[1]):
            top, left = window_start(i, size[0], 3), window_start(j, size[1], 4)
            rows, columns = slice(top, top + 3), slice(left, left + 4)
            seen = given[:, rows, columns] if condition == "segmentation" else given
            logits = prior(seen, expected[:, rows, columns])[:, (i - top) * 4 + j - left]
            expected[:, i, j] = draw(logits, chances[:, i * size[1] + j], Choice())
    assert torch.equal(compose(prior, given, 3, FOUR[:2], CPU, size=size, batch_size=2), expected)


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
    together = compose(prior, maps, 3, FOUR, CPU, size=size)
    alone = compose(prior, maps[2:3], 3, FOUR[2:3], CPU, size=size)
    assert torch.equal(together[2:3], alone)
    kept = torch.zeros(size, dtype=torch.bool)
    kept[:2] = True
    again = compose(prior, maps, 3, FOUR, CPU, size=size, known=Known(together, kept))
    assert torch.equal(again, together)


SIZES = {
    "fewer than the 3 x 4": ({}, {"size": (2, 9)}),
    "larger pictures need the order `raster`": ({"order": "z-curve"}, {"size": (3, 9)}),
    "ids from 0 to 0": ({}, {"condition": NONE + 1}),
    "needs ids of shape": ({"condition": "segmentation", "condition_size": 5}, {}),
    "known codes have to be of this codebook of 11": (
        {},
        {"known": Known(torch.full((4, 3, 4), 11), torch.ones(3, 4, dtype=torch.bool))},
    ),
    "known codes need the shape": ({}, {"known": Known(torch.zeros(4, 2, 2), torch.zeros(2, 2))}),
}


@pytest.mark.parametrize("message", SIZES)
def test_what_does_not_fit_the_prior_is_refused_in_one_line(message):
    changes, asked = SIZES[message]
    prior, asked = make(**changes), {"condition": NONE} | asked
    condition = asked.pop("condition")
    with pytest.raises(RecipeError, match=message) as refused:
        composing(prior, Request(condition, FOUR, **asked), CPU)  # before the first code
    assert "\n" not in str(refused.value)
