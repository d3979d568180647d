"""Blocks that are computed again in the backward pass in place of being kept."""

from __future__ import annotations

import pytest
import torch

from gtool.runtime.device import make_compute
from tests.helpers import steps, tiny
from tests.helpers.runs import flat


@pytest.mark.parametrize(
    ("recipe_of", "settings"),
    [
        (tiny.tiny_recipe, ()),  # whose penalty takes a second derivative
        (tiny.tiny_gansformer, ("model.synthesis.dropout=0.1",)),
        (tiny.tiny_tokenizer, ()),
        (tiny.tiny_prior, ("model.prior.dropout=0.1",)),
        (tiny.tiny_strokes, ()),
    ],
)
def test_recomputed_blocks_learn_the_same_from_less_memory(recipe_of, settings):
    learned, kept = [], []
    for recompute in ("false", "true"):
        recipe = recipe_of(*settings, f"train.recompute={recompute}")
        torch.manual_seed(0)
        config = steps.config_of(recipe, tiny.TOKENIZER["model"])
        state, step = steps.begin(recipe, config, make_compute("cpu", "fp32"))
        torch.manual_seed(1)
        held: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, held=held: held.append(x.nbytes) or x, lambda x: x
        ):
            step(state)
        learned.append(
            torch.cat([flat(network) for network in state.networks.values() if list(network.parameters())])
        )
        kept.append(sum(held))
    torch.testing.assert_close(learned[1], learned[0], atol=1e-6, rtol=0)
    assert kept[1] < kept[0]
