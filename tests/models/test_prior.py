"""The prior: its networks, orders and parameter counts; codes drawn from it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gtool.config.recipe import validate
from gtool.errors import RecipeError
from gtool.models.prior import network
from gtool.models.prior.config import PriorConfig
from gtool.models.prior.network import Prior, cells_in_order, decay_groups, for_sampling
from tests.helpers.priors import SMALL, inputs, make

# Sheet: what the released configs and image-GPT's sizes count.
RELEASED = {
    "24 x 1024, map": (304_932_864, {"condition": "depth", "condition_size": 1024, "positions": 512}),
    "24 x 1664": (801_798_400, {"width": 1664}),
    "48 x 1536, class": (
        1_410_640_896,
        {
            **{"layers": 48, "heads": 24, "width": 1536, "codebook_size": 16384},
            **{"condition": "class", "condition_size": 1000},
        },
    ),
}
IMAGE_GPT = {
    "S": (76_571_648, 24, 512, 8),
    "M": (455_157_760, 36, 1024, 8),
    "L": (1_362_250_752, 48, 1536, 16),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_have_the_released_parameters(name):
    expected, changes = RELEASED[name]
    config = PriorConfig(shared_embedding=True, **changes)
    with torch.device("meta"):
        prior = Prior(config)
    assert sum(p.numel() for p in prior.parameters()) == expected


@pytest.mark.parametrize("name", IMAGE_GPT)
def test_image_gpt_has_its_parameters(name):
    expected, layers, width, heads = IMAGE_GPT[name]
    config = PriorConfig(
        kind="image-gpt", layers=layers, width=width, heads=heads, codebook_size=512, grid=(32, 32)
    )
    with torch.device("meta"):
        prior = Prior(config)
    assert sum(p.numel() for p in prior.parameters()) == expected


@pytest.mark.parametrize("kind", ["gpt", "image-gpt"])
@pytest.mark.parametrize("condition", ["none", "class", "segmentation"])
def test_logits_are_of_codes_alone(kind, condition):
    prior = make(kind=kind, condition=condition, condition_size=1 if condition == "none" else 7)
    assert prior(*inputs(prior)).shape == (3, 12, 11)


CACHED = [
    {},
    {"kind": "image-gpt"},
    {"condition": "class", "condition_size": 5, "order": "spiral-out"},
    {"condition": "segmentation", "condition_size": 5, "unmasked_prefix": 12},
    {"condition": "depth", "condition_size": 11, "shared_embedding": True, "positions": 40},
]


def test_cached_logits_of_weights_in_bf16_are_nearly_the_full_ones():
    half = for_sampling(make(width=64), torch.bfloat16)
    condition, codes = inputs(half)
    full = half(condition, codes)
    cache, logits = half.start(condition)
    for place in range(11):
        assert (logits[:, 0] - full[:, place]).norm() < 0.02 * full[:, place].norm()
        logits = half.extend(cache, codes.flatten(1)[:, place : place + 1])


@pytest.mark.parametrize("kind", ["gpt", "image-gpt"])
def test_codes_of_one_image_on_a_core_with_amx_have_the_logits_they_have_elsewhere(kind, monkeypatch):
    prior = for_sampling(make(kind=kind), torch.float32)
    condition, codes = (x[:1] for x in inputs(prior))
    full = prior(condition, codes)
    monkeypatch.setattr(network, "has_amx", lambda device: True)
    cache, logits = prior.start(condition)
    for place in range(11):
        torch.testing.assert_close(logits[:, 0], full[:, place], atol=1e-5, rtol=1e-4)
        logits = prior.extend(cache, codes.flatten(1)[:, place : place + 1])


@pytest.mark.parametrize("changes", CACHED)
@pytest.mark.parametrize("known", [0, 1, 7])
def test_cached_logits_equal_full_logits(changes, known):
    prior = make(**changes)
    condition, codes = inputs(prior)
    full = prior(condition, codes)
    sequence = prior.in_order(codes)
    cache, logits = prior.start(condition, sequence[:, :known])
    for place in range(known, 12):
        torch.testing.assert_close(logits[:, 0], full[:, place], rtol=1e-4, atol=1e-4)
        if place < 11:
            logits = prior.extend(cache, sequence[:, place : place + 1])
    assert cache.room == 0


@pytest.mark.parametrize("order", ["raster", "spiral-in", "random"])
def test_a_logit_depends_on_earlier_codes_alone(order):
    prior = make(order=order)
    condition, codes = inputs(prior, 1)
    sequence = prior.in_order(codes)
    before = prior(condition, sequence)
    for place in range(12):
        other = sequence.clone()
        other[:, place] = (other[:, place] + 1) % 11
        changed = (prior(condition, other) != before).any(-1)[0]
        assert not changed[: place + 1].any()
        assert changed[place + 1 :].all()


@pytest.mark.parametrize(
    "order", ["raster", "subsample", "z-curve", "spiral-out", "spiral-in", "alternate", "random"]
)
@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 4), (5, 3)])
def test_orders_visit_every_cell_once_and_can_be_undone(order, grid):
    prior = make(order=order, grid=grid)
    codes = torch.arange(grid[0] * grid[1]).view(1, *grid)
    assert sorted(prior.in_order(codes)[0].tolist()) == list(range(grid[0] * grid[1]))
    assert torch.equal(prior.in_order(codes)[:, prior.cells.argsort()].view_as(codes), codes)


# From the definitions in permuter.py of the release, run on a grid of 4 x 4.
ORDERS = {
    "raster": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    "subsample": [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15],
    "z-curve": [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15],
    "spiral-out": [9, 5, 6, 10, 14, 13, 12, 8, 4, 0, 1, 2, 3, 7, 11, 15],
    "spiral-in": [15, 11, 7, 3, 2, 1, 0, 4, 8, 12, 13, 14, 10, 6, 5, 9],
    "alternate": [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 15, 14, 13, 12],
    "random": [3, 13, 7, 2, 6, 10, 4, 1, 14, 0, 15, 9, 8, 12, 11, 5],
}


@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_the_released_ones(order):
    assert cells_in_order(order, 4, 4) == ORDERS[order]


def test_image_gpt_equals_its_formulas():
    """One layer of openai/image-gpt, src/model.py, written out."""
    prior = make(kind="image-gpt", layers=1)
    condition, codes = inputs(prior)
    weights = dict(prior.named_parameters())

    def norm(x, name):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[name]

    x = torch.cat(
        [weights["conditions.weight"].expand(3, 1, 16), weights["codes.weight"][codes.flatten(1)[:, :-1]]], 1
    )
    x = x + weights["positions"]
    q, k, v = (norm(x, "blocks.0.norm1.weight") @ weights["blocks.0.attention.qkv.weight"].T).chunk(3, -1)
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 8**0.5
        scores = scores - 1e10 * torch.ones(12, 12).triu(1)
        heads.append(scores.softmax(-1) @ v[..., part])
    x = x + torch.cat(heads, -1) @ weights["blocks.0.attention.out.weight"].T
    hidden = norm(x, "blocks.0.norm2.weight") @ weights["blocks.0.mlp.expand.weight"].T
    x = x + hidden * torch.sigmoid(1.702 * hidden) @ weights["blocks.0.mlp.contract.weight"].T
    expected = norm(x, "norm.weight") @ weights["head.weight"].T
    torch.testing.assert_close(prior(condition, codes), expected, rtol=1e-4, atol=1e-5)


def test_image_gpt_starts_as_released():
    torch.manual_seed(0)
    prior = Prior(PriorConfig(kind="image-gpt", layers=4, heads=4, width=64, codebook_size=64))
    assert not prior.head.weight.any()
    attention = prior.blocks[0].attention
    assert attention.qkv.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert attention.out.weight.std().item() == pytest.approx((64 * 4) ** -0.5, rel=0.05)
    assert prior.codes.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(name.endswith("bias") for name, _ in prior.named_parameters())


def test_only_weights_of_linear_maps_decay():
    prior = make(condition="class", condition_size=3).requires_grad_(True)
    decayed, rest = (
        {n for n, p in prior.named_parameters() if any(p is q for q in group["params"])}
        for group in decay_groups(prior, 0.01)
    )
    linear = ("qkv.weight", "out.weight", "expand.weight", "contract.weight", "head.weight")
    assert decayed == {n for n, _ in prior.named_parameters() if n.endswith(linear)}
    assert decayed | rest == {n for n, _ in prior.named_parameters()}
    assert [group["weight_decay"] for group in decay_groups(prior, 0.01)] == [0.01, 0.0]


def test_weights_in_bf16_give_nearly_the_same_logits_and_share_the_rest():
    prior = make(condition="class", condition_size=3)
    half = for_sampling(prior, torch.bfloat16)
    assert half.blocks[0].mlp.expand.weight.dtype == torch.bfloat16
    assert half.codes.weight.data_ptr() == prior.codes.weight.data_ptr()
    assert prior.blocks[0].mlp.expand.weight.dtype == torch.float32
    condition, codes = inputs(prior)
    full, rough = prior(condition, codes), half(condition, codes)
    assert rough.dtype == torch.float32
    assert (full - rough).norm() < 0.02 * full.norm()


@pytest.mark.parametrize("kind", ["gpt", "image-gpt"])
def test_learns_codes_that_the_condition_tells(kind):
    torch.manual_seed(0)
    changes = {"kind": kind, "condition": "segmentation", "condition_size": 4, "grid": (2, 2), "width": 32}
    prior = Prior(PriorConfig(**SMALL | changes))
    optimizer = torch.optim.AdamW(decay_groups(prior, 0.01), lr=5e-3)
    generator = torch.Generator().manual_seed(2)
    for _ in range(150):
        maps = torch.randint(4, (32, 2, 2), generator=generator)
        loss = F.cross_entropy(prior(maps, maps).flatten(0, 1), maps.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9  # below ln 4 = 1.39, all that can be had without the map
    assert all(p.grad is not None and p.grad.any() for p in prior.parameters())


@pytest.mark.parametrize("amx", [False, True])
def test_bf16_autocast_trains_as_fp32_does(amx, monkeypatch):
    monkeypatch.setattr("gtool.models.prior.network.has_amx", lambda device: amx)
    prior = make(condition="segmentation", condition_size=4).requires_grad_(True)
    condition, codes = inputs(prior)
    gradients = []
    for enabled in (False, True):
        prior.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = prior(condition, codes)
        F.cross_entropy(logits.flatten(0, 1), codes.flatten()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in prior.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.995


BAD = {
    "heads": ({"heads": 3}, "width = 16 cannot be shared by 3 heads"),
    "condition": ({"condition_size": 4}, "there is no condition"),
    "positions": ({"positions": 5}, "positions = 5 is fewer than the 12 tokens"),
    "prefix": ({"unmasked_prefix": 2}, "codes would see what they are to predict"),
    "order": ({"order": "spiral"}, "`order`"),
    "table": (
        {"shared_embedding": True, "condition": "class", "condition_size": 12},
        "a codebook of at least condition_size = 12",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_config_that_means_nothing_is_refused(name):
    changes, message = BAD[name]
    with pytest.raises(RecipeError, match=message):
        validate(PriorConfig, SMALL | changes, "recipe")
