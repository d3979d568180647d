"""Priors of any order: what a code depends on, several codes at once, holes, guidance."""

from __future__ import annotations

import pytest
import torch

from gtool.errors import RecipeError
from gtool.models.prior.config import PriorConfig, SamplingParams
from gtool.models.prior.sampling import UNKNOWN, guidance_at, step_sizes
from tests.helpers.priors import SMALL, inputs, make, sample

KINDS = [
    {},
    {"kind": "image-gpt"},
    *({"condition": kind, "condition_size": 5} for kind in ("class", "segmentation")),
]
FOUR = torch.arange(4)
NONE = torch.zeros(4, 1, dtype=torch.int64)


def orders(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 12, generator=torch.Generator().manual_seed(2)).argsort(dim=1)


@pytest.mark.parametrize("changes", KINDS)
def test_a_logit_depends_on_the_codes_before_it_in_its_own_order(changes):
    prior = make(orders="any", **changes)
    (condition, codes), order = inputs(prior), orders()
    before = prior(condition, codes, order)
    for place in range(12):
        cells = order[:, place, None]
        other = codes.flatten(1).scatter(1, cells, (codes.flatten(1).gather(1, cells) + 1) % 11)
        changed = (prior(condition, other.view_as(codes), order) != before).any(-1)
        assert not changed[:, : place + 1].any()
        assert changed[:, place + 1 :].all()


def test_row_by_row_is_the_order_that_needs_no_saying():
    prior = make(orders="any", condition="segmentation", condition_size=5)
    condition, codes = inputs(prior)
    assert torch.equal(prior(condition, codes), prior(condition, codes, torch.arange(12)[None]))


@pytest.mark.parametrize("changes", KINDS)
def test_codes_at_once_have_the_logits_of_each_alone_after_the_same_codes(changes):
    prior = make(orders="any", **changes)
    (condition, codes), order = inputs(prior), orders()
    sequence = prior.in_order(codes, order)
    cache, logits = prior.start(condition, sequence[:, :1], order=order, wanted=2)
    done = 1
    for wanted in (3, 4, 2, 0):
        for ahead in range(logits.shape[1]):
            swapped = order.clone()  # the wanted cell comes next
            swapped[:, [done, done + ahead]] = order[:, [done + ahead, done]]
            alone = prior(condition, codes, swapped)[:, done]
            torch.testing.assert_close(logits[:, ahead], alone, rtol=1e-4, atol=1e-4)
        if wanted:
            count = logits.shape[1]
            logits = prior.extend(cache, sequence[:, done : done + count], wanted)
            done += count


def test_a_hole_is_filled_from_all_around_it():
    prior = make(orders="any")
    known = torch.randint(11, (4, 3, 4))
    known[:, 1, 1:3] = UNKNOWN
    filled = sample(prior, NONE, 3, FOUR, known=known)
    assert torch.equal(filled[known >= 0], known[known >= 0])
    assert (filled >= 0).all()
    later = known.clone()
    later[:, 2] = (later[:, 2] + 1) % 11
    assert not torch.equal(sample(prior, NONE, 3, FOUR, known=later)[:, 1], filled[:, 1])
    # One of one order does not look ahead.
    fixed = make()
    seen = [sample(fixed, NONE, 3, FOUR, known=codes)[:, 1] for codes in (known, later)]
    assert torch.equal(*seen)


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_steps_fill_every_cell_and_an_image_does_not_depend_on_its_neighbours(steps):
    prior, calls = make(orders="any"), []
    prior.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    filled = sample(prior, NONE, 3, FOUR, SamplingParams(steps=steps))
    assert len(calls) == steps
    assert ((filled >= 0) & (filled < 11)).all()
    alone = sample(prior, NONE[:1], 3, FOUR[2:3], SamplingParams(steps=steps))
    assert torch.equal(alone, filled[2:3])


def test_steps_begin_with_few_codes_and_each_has_some():
    for count, steps in ((64, 16), (64, 64), (12, 5), (3, 16), (7, 1)):
        sizes = step_sizes(count, steps)
        assert (sum(sizes), len(sizes), min(sizes) >= 1) == (count, min(count, steps), True)
    assert step_sizes(64, 8) == sorted(step_sizes(64, 8))


@pytest.mark.parametrize("orders", ["one", "any"])
@pytest.mark.parametrize("size", [(3, 4), (4, 6)])
def test_guidance_moves_logits_beyond_the_condition_the_more_the_later_the_code(orders, size):
    prior = make(orders=orders, condition="segmentation", condition_size=5)
    maps, dropped = torch.randint(4, (4, *size)), torch.full((4, *size), 4)

    def by(condition, scale):
        return sample(prior, condition, 3, FOUR, SamplingParams(guidance=scale), size=size)

    assert torch.equal(by(dropped, 4), by(dropped, 1))
    assert not torch.equal(by(maps, 1), by(dropped, 1))
    assert not torch.equal(by(maps, 4), by(maps, 1))
    scales = [guidance_at(3, done, 12) for done in range(12)]
    assert (1 < scales[0] < scales[11] < 5, sum(scales) / 12) == (True, pytest.approx(3))
    with pytest.raises(RecipeError, match="guidance 2: this prior has no condition"):
        sample(make(), NONE, 3, FOUR, SamplingParams(guidance=2))


def test_larger_images_of_any_order_see_what_is_known_below():
    prior, size = make(orders="any"), (4, 6)
    known = torch.randint(11, (4, *size))
    known[:, 1, 2:4] = UNKNOWN
    filled = sample(prior, NONE, 3, FOUR, known=known)
    later = known.clone()
    later[:, 2] = (later[:, 2] + 1) % 11
    assert not torch.equal(sample(prior, NONE, 3, FOUR, known=later)[:, 1], filled[:, 1])
    with pytest.raises(RecipeError, match="leave steps out"):
        sample(prior, NONE, 3, FOUR, SamplingParams(steps=3), known=known)


def test_a_prior_of_one_order_cannot_take_steps():
    with pytest.raises(RecipeError, match="model.prior.orders=any"):
        sample(make(), NONE, 3, FOUR, SamplingParams(steps=3))
    with pytest.raises(ValueError, match="the order `raster`"):
        PriorConfig(**SMALL, orders="any", order="z-curve")
