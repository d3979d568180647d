"""Stroke predictors: the released one against known answers, and what both promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gtool.errors import CheckpointError
from gtool.models.paint_transformer.config import PaintTransformerConfig
from gtool.models.paint_transformer.network import REACH, build_predictor
from gtool.models.paint_transformer.released import rename_released
from gtool.runtime.torch_random import hashed_normal
from tests.helpers.transgan_formula import formula_tensor, summary

GOLDEN = Path(__file__).parent / "golden"
TINY = {"width": 16, "heads": 2, "depth": 1, "stem_width": 8}


def predictor(**values):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_predictor(PaintTransformerConfig(**values)).eval()


def patches(count=3):
    target = 0.5 + 0.5 * formula_tensor((count, 3, 32, 32), 1)
    return target, 0.5 + 0.5 * formula_tensor((count, 3, 32, 32), 2)


def released_weights(network):
    """Weights by a hash of their names and places, of the size that the network is initialised with, or larger."""
    weights = dict(network.state_dict())
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            rows = tensor.shape[0]
            values = hashed_normal(0, torch.arange(rows), tensor.numel() // rows, name).view(tensor.shape)
            inputs = tensor.numel() // rows if tensor.ndim > 1 else 25
            is_gain = tensor.ndim == 1 and name.endswith("weight")
            weights[name] = (
                (values / inputs**0.5).exp() if name.endswith("var") else values / inputs**0.5 + is_gain
            )
    return weights


def test_the_released_network_has_its_9072902_parameters():
    assert sum(p.numel() for p in predictor(architecture="released").parameters()) == 9_072_902


def test_outputs_equal_those_of_the_released_class():
    """Known answers: `python -m tests.benchmarks.paint_reference --reference CHECKOUT --write`, weights by a hash."""
    known = json.loads((GOLDEN / "paint_transformer_released.json").read_text(encoding="utf-8"))
    network = predictor(architecture="released")
    network.load_state_dict(released_weights(network))
    with torch.no_grad():
        shape_params, logits = network(*patches())
    for name, value in (("shape_params", shape_params), ("logits", logits)):
        ours = summary(value)
        assert ours["std"] == pytest.approx(known[name]["std"], rel=1e-4)
        assert ours["values"] == pytest.approx(known[name]["values"], rel=1e-4, abs=1e-4)


def test_released_weights_come_in_by_their_names():
    network = predictor(architecture="released")
    config, tensors = rename_released(released_weights(network) | {"other.weight": torch.zeros(2)})
    again = build_predictor(config)
    again.load_state_dict(tensors)
    with torch.no_grad():
        network.load_state_dict(tensors)
        assert torch.equal(network(*patches()).logits, again.eval()(*patches()).logits)


def test_other_weights_are_refused():
    with pytest.raises(CheckpointError, match="`enc_img` is missing"):
        rename_released({"conv.weight": torch.zeros(1)})


@pytest.mark.parametrize("values", [TINY, {"architecture": "released"}, {**TINY, "grid": 4}], ids=str)
def test_proposals_have_the_promised_shape_and_ranges(values):
    network = predictor(**values)
    shape_params, logits = network(*patches(2))
    assert shape_params.shape == (2, network.config.proposals, 5)
    assert logits.shape == (2, network.config.proposals)
    assert shape_params[..., 2:4].min() > 0
    assert shape_params.isfinite().all()


def test_a_dense_stroke_stays_near_its_cell():
    network = predictor(**TINY)
    network.head.weight.data.normal_(0, 3, generator=torch.Generator().manual_seed(1))
    shape_params, _ = network(*patches(2))
    away = (shape_params[..., :2] - network.centres).abs()
    assert away.max() <= REACH / 8 + 1e-6
    assert away.max() > 0.5 / 8
    assert ((shape_params[..., 4] >= 0) & (shape_params[..., 4] < 1)).all()


def test_every_parameter_gets_a_gradient():
    network = predictor(**TINY).train()
    shape_params, logits = network(*patches(2))
    (shape_params.square().sum() + logits.square().sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_a_patch_is_judged_alone():
    network = predictor(**TINY)
    target, canvas = patches(4)
    alone = network(target[2:3], canvas[2:3]).shape_params
    torch.testing.assert_close(network(target, canvas).shape_params[2:3], alone, rtol=1e-4, atol=1e-5)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="cannot be shared by 5 heads"):
        PaintTransformerConfig(heads=5)
