"""Attention between pixels and components, against its formulas written out with C x C matrices on pixels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.models.gansformer.attention import BipartiteAttention
from gtool.models.gansformer.config import SynthesisConfig
from gtool.nn.positions import GridEncoding
from tests.helpers.gansformers import KINDS

N, PIXELS, CHANNELS, COUNT, WIDTH, PLACES = 2, 10, 8, 3, 6, 4


def layer_of(kind: str, **changes: Any) -> BipartiteAttention:
    torch.manual_seed(0)
    layer = BipartiteAttention(
        CHANNELS,
        WIDTH,
        COUNT,
        kind,
        SynthesisConfig(**changes),
        position_dim=PLACES,
        component_position_dim=WIDTH,
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim < 2:
                parameter += 0.3 * torch.randn_like(parameter)
    return layer


def inputs() -> list[Tensor]:
    """Pixels, components, places of pixels, places of components."""
    random = torch.Generator().manual_seed(1)
    shapes = [(N, PIXELS, CHANNELS), (N, COUNT, WIDTH), (PIXELS, PLACES), (COUNT, WIDTH)]
    return [torch.randn(*shape, generator=random) for shape in shapes]


def read(layer: BipartiteAttention, *given: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pixels and attention as formulas have it, (N, h, L, k)."""
    x, attention = layer(*given)
    return x, attention.transpose(2, 3)


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:-1], heads, -1).transpose(-2, -3)


def plain_attention(layer: BipartiteAttention, x: Tensor, y: Tensor, places: Tensor, own: Tensor) -> Tensor:
    """(N, h, L, k) as the paper writes it: queries of all pixels, keys of all components."""
    settings, heads = layer.settings, layer.settings.heads
    scale = math.sqrt(CHANNELS / heads)
    content, by_place = heads_of(layer.query(x), heads), heads_of(layer.query_position(places), heads)
    if layer.centroids is not None:
        queries = torch.cat([content, by_place.expand(N, -1, -1, -1)], dim=-1)
        keys = layer.centroids[None]
        attention = ((queries * layer.centroid_scale) @ keys.transpose(2, 3) / scale).softmax(-1)
        for _ in range(settings.iterations - 1):
            shares = attention / (attention.sum(dim=2, keepdim=True) + 1e-8)
            keys = shares.transpose(2, 3) @ queries
            attention = ((queries * layer.centroid_scale) @ keys.transpose(2, 3) / scale).softmax(-1)
        return attention
    queries = content + by_place
    keys = layer.key(y) + layer.key_position(own)
    for _ in range(settings.iterations if layer.gather is not None else 0):
        scores = queries @ heads_of(keys, heads).transpose(2, 3) / scale
        weights = scores.softmax(2)
        weights = weights / weights.sum(dim=2, keepdim=True)
        values = heads_of(layer.gather(x) + layer.gather_position(places), heads)
        keys = layer.key_norm(keys + (weights.transpose(2, 3) @ values).transpose(1, 2).flatten(2))
    return (queries @ heads_of(keys, heads).transpose(2, 3) / scale).softmax(-1)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_that_of_its_formula(kind, heads, iterations):
    layer = layer_of(kind, heads=heads, iterations=iterations)
    given = inputs()
    with torch.no_grad():
        _, attention = read(layer, *given)
        torch.testing.assert_close(attention, plain_attention(layer, *given), rtol=1e-4, atol=1e-5)


def plain_integration(layer: BipartiteAttention, x: Tensor, y: Tensor, attention: Tensor) -> Tensor:
    settings = layer.settings
    read = (attention @ heads_of(layer.value(y), settings.heads)).transpose(1, 2).flatten(2)
    control = layer.modulation(read)
    axis = -1 if settings.norm == "layer" else 1
    if settings.norm != "none":
        if settings.integration != "mul":
            x = x - x.mean(dim=axis, keepdim=True)
        if settings.integration != "add":
            x = x / (x.square().mean(dim=axis, keepdim=True) + 1e-8).sqrt()
    if settings.integration == "add":
        return x + control
    gain, shift = control.chunk(2, dim=-1) if settings.integration == "both" else (control, 0)
    return x * (1 + gain) + shift


@pytest.mark.parametrize("norm", ["layer", "instance", "none"])
@pytest.mark.parametrize("integration", ["mul", "add", "both"])
@pytest.mark.parametrize("heads", [1, 2])
def test_what_is_read_changes_pixels_by_its_formula(heads, integration, norm):
    layer = layer_of("simplex", heads=heads, integration=integration, norm=norm)
    x, y, *rest = inputs()
    with torch.no_grad():
        changed, attention = read(layer, x, y, *rest)
        expected = plain_integration(layer, x, y, attention)
    torch.testing.assert_close(changed, expected, rtol=1e-4, atol=1e-4)


def test_what_attention_adds_at_the_start_can_be_scaled():
    x, y, *rest = inputs()
    quiet, loud = (
        layer_of("simplex", integration="add", attention_gain=1e-9),
        layer_of("simplex", integration="add"),
    )
    with torch.no_grad():
        torch.testing.assert_close(read(quiet, x, y, *rest)[0], x - x.mean(dim=-1, keepdim=True))
        assert (read(loud, x, y, *rest)[0] - x).abs().max() > 0.1


def moved_maps(layer: BipartiteAttention, which: int, place: int | None = None) -> Tensor:
    """How far attention moves when one input changes, at one place of it or everywhere: (N, h, L, k)."""
    given = inputs()
    changed = list(given)
    changed[which] = given[which].clone()
    changed[which][..., slice(None) if place is None else place, :] += 1.0
    with torch.no_grad():
        return (read(layer, *given)[1] - read(layer, *changed)[1]).abs()


@pytest.mark.parametrize("heads", [1, 2])
def test_keys_of_duplex_attention_gather_from_the_image(heads):
    """What one pixel shows moves what other pixels attend to; in the released default nothing does."""
    others = torch.arange(PIXELS) != 4
    for kind in KINDS:
        moved = moved_maps(layer_of(kind, heads=heads), 0, 4)[:, :, others]
        assert (moved.amax(dim=(0, 2, 3)) > 1e-4).all() if kind == "duplex" else not moved.any()
    assert moved_maps(layer_of("centroid", iterations=2), 0, 4)[:, :, others].max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_has_its_share_of_content_and_of_position(kind):
    """In the release, the first of two heads compares content alone and the last one position alone (sheet 1.4)."""
    layer = layer_of(kind, heads=2)
    for which in (0, 2):
        assert (moved_maps(layer, which, 4)[:, :, 4].amax(dim=(0, 2)) > 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_components_decide_attention_but_for_centroids(kind):
    for which in (1, 3):
        moved = moved_maps(layer_of(kind), which, 0)
        assert not moved.any() if kind == "centroid" else moved.max() > 1e-3


def test_gates_close_pixels():
    layer = layer_of("simplex", gate_pixels=True)
    given = inputs()
    with torch.no_grad():
        layer.pixel_gate.bias.fill_(50.0)
        open_, attention = read(layer, *given)
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(N, 1, PIXELS))
        layer.pixel_gate.bias.fill_(-50.0)
        closed, attention = read(layer, *given)
        assert attention.max() < 1e-6
    assert (open_ - closed).abs().max() > 1e-2


def test_pixel_gates_begin_open():
    torch.manual_seed(0)
    settings = SynthesisConfig(gate_pixels=True)
    layer = BipartiteAttention(CHANNELS, WIDTH, COUNT, "simplex", settings, position_dim=0)
    with torch.no_grad():
        layer.pixel_gate.weight.zero_()
        _, attention = read(layer, *inputs()[:2], None, None)
    torch.testing.assert_close(
        attention.sum(-1), torch.full((N, 1, PIXELS), torch.sigmoid(torch.ones(())).item())
    )


def test_dropout_leaves_out_weights_and_whole_components_at_half_the_rate():
    layer = layer_of("simplex", dropout=0.5).train()
    dropped = layer._dropped(torch.ones(400, 1, COUNT, 50))
    whole = (dropped == 0).all(dim=-1)
    assert whole.float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert (dropped == 0).float().mean().item() == pytest.approx(1 - 0.75**2, abs=0.05)
    assert dropped.mean().item() == pytest.approx(1, abs=0.1)


def test_attention_costs_as_many_products_as_pixels_times_components():
    """No matrix of C x C meets the pixels (section 3 of the paper: linear in both)."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    counted = []
    for pixels in (64, 128):
        layer = BipartiteAttention(64, 8, 4, "duplex", SynthesisConfig(), position_dim=0)
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(1, pixels, 64), torch.randn(1, 4, 8), None, None)
        counted.append(counter.get_total_flops())
    assert counted[1] - counted[0] == 2 * 64 * (4 * 64 * 4)  # scores, gathering, scores, reading


# Places.


def test_waves_are_those_of_their_formula():
    encoded = GridEncoding("sinus", 5, 8)().view(5, 5, 8)
    for row, column in ((0, 0), (1, 3), (4, 2)):
        x, y = -1 + column / 2, -1 + row / 2
        waves = [1.0, 10000 ** (-4 / 8)]
        expected = [f(c * w) for c in (x, y) for f in (math.sin, math.cos) for w in waves]
        assert encoded[row, column].tolist() == pytest.approx(expected, abs=1e-6)
    encoded = GridEncoding("fourier", 5, 8)().view(5, 5, 8)
    expected = [f(c * w) for c in (0.5, -0.5) for f in (math.sin, math.cos) for w in (math.pi / 2, math.pi)]
    assert encoded[1, 3].tolist() == pytest.approx(expected, abs=1e-6)


def test_learned_places_learn_and_learn_again():
    encoding = GridEncoding("trainable2d", 4, 8)
    assert encoding().shape == (16, 8)
    first = None
    for _ in range(2):
        (encoding() * torch.arange(128.0).view(16, 8)).sum().backward()
        (parameter,) = encoding.parameters()
        assert parameter.grad.abs().max() > 0
        first = parameter.grad.clone() if first is None else first
    torch.testing.assert_close(parameter.grad, 2 * first)


def test_half_precision_rounds_no_scores_of_components():
    """Softmax, keys and what is gathered are float32 under autocast."""
    layer = layer_of("duplex")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        changed, attention = read(layer, *inputs())
    assert attention.dtype == torch.float32
    exact = read(layer, *inputs())[1]
    torch.testing.assert_close(attention, exact, rtol=0.1, atol=0.02)
    assert changed.isfinite().all()
    assert F.mse_loss(changed.float(), read(layer, *inputs())[0]) < 1e-3
