"""What is wrong in the released prior and its samplers, and must not be here."""

from __future__ import annotations

import pytest
import torch

from gtool.config.recipe import validate
from gtool.errors import RecipeError
from gtool.models.prior.config import PriorConfig, SamplingParams
from gtool.models.prior.network import cells_in_order
from gtool.models.prior.sampling import draw
from tests.helpers.priors import SMALL, inputs, make, sample


def test_conditions_have_ids_of_their_own():
    """Released: class 207 is row 207 of the codes, and the start of an unconditional image is code 0."""
    prior = make(condition="class", condition_size=30)  # more classes than the 11 codes
    condition, codes = inputs(prior)
    before = prior(condition, codes)
    assert before.shape[-1] == 11  # a condition cannot be drawn as a code
    with torch.no_grad():
        prior.conditions.weight[condition[0, 0]] += 1
    after = prior(condition, codes)
    assert not torch.equal(before[0], after[0])
    same = condition[:, 0] != condition[0, 0]
    assert torch.equal(before[same], after[same])  # whatever codes they hold


def test_top_p_works_without_top_k():
    """Released: ignored where top_k is None."""
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(1000, -1)
    chance = torch.linspace(0, 1, 1000)
    assert set(draw(logits, chance, SamplingParams(top_p=0.6)).tolist()) == {3}


def test_the_cache_is_taken_once_and_never_copied():
    """Released: keys and values of all layers are concatenated again for every code."""
    prior = make()
    cache, _ = prior.start(torch.zeros(2, 1, dtype=torch.int64))
    places = cache.keys.data_ptr(), cache.values.data_ptr()
    assert cache.keys.shape == (2, 2, 2, 12, 8)  # layers, images, heads, all tokens, width of a head
    for _ in range(11):
        prior.extend(cache, torch.zeros(2, 1, dtype=torch.int64))
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == places


@pytest.mark.parametrize("condition", ["class", "segmentation", "depth"])
def test_every_kind_of_condition_is_sampled_with_a_cache(condition):
    """Released: a cache for unconditional and class-conditional networks alone."""
    prior = make(condition=condition, condition_size=5)
    lengths = []
    for block in prior.blocks:
        block.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    given = torch.zeros((2, 1) if condition == "class" else (2, 3, 4), dtype=torch.int64)
    sample(prior, given, 0, torch.arange(2), batch_size=2)
    first = prior.config.condition_length
    assert lengths == 2 * [first] + 11 * 2 * [1]


def test_more_than_all_codes_are_refused_before_anything_is_sampled():
    """Released: an error of the tensor library, after the first forward pass."""
    with pytest.raises(RecipeError, match="top-k 12: the codebook has 11 codes; use 1 to 11"):
        sample(make(), torch.zeros(1, 1, dtype=torch.int64), 0, torch.arange(1), SamplingParams(top_k=12))


def test_other_orders_than_rows_are_refused_for_larger_pictures():
    """Released: windows of permuted codes, which mean nothing."""
    with pytest.raises(RecipeError, match="larger images need the order `raster`"):
        sample(make(order="z-curve"), torch.zeros(1, 1, dtype=torch.int64), 0, torch.arange(1), size=(6, 8))


@pytest.mark.parametrize("order", ["spiral-out", "spiral-in", "z-curve", "subsample"])
def test_orders_are_made_for_any_grid(order):
    """Released: spirals of even squares, and z-curves and subsampling of powers of two, alone."""
    for height, width in ((5, 5), (3, 7), (6, 4), (1, 9)):
        assert sorted(cells_in_order(order, height, width)) == list(range(height * width))


def test_codes_that_would_see_what_they_are_to_predict_are_refused():
    """Released: n_unmasked can be anything."""
    with pytest.raises(RecipeError, match="codes would see what they are to predict"):
        validate(PriorConfig, SMALL | {"unmasked_prefix": 5}, "recipe")


def test_images_do_not_depend_on_what_is_sampled_with_them():
    """Released: one stream of random numbers for a batch."""
    prior = make()
    condition = torch.zeros(6, 1, dtype=torch.int64)
    whole = sample(prior, condition, 1, torch.arange(6))
    assert torch.equal(whole[4:], sample(prior, condition[4:], 1, torch.tensor([4, 5])))
