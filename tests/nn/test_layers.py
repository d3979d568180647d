"""The building blocks: each against an independently written form of itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gtool.models.transgan.resampling import (
    PatchEmbed,
    low_pass,
    pixel_shuffle,
    pool,
    smooth,
    to_map,
    to_tokens,
    upsample,
)
from gtool.nn import attention, second_derivatives
from gtool.nn.attention import MLP, CrossAttention, SelfAttention, attend, plain_attention, tiled_attention
from gtool.nn.normalization import GroupNorm, Normalization
from gtool.nn.positions import RelativePositionBias, from_tiles, local_table, neighbourhood_mask, to_tiles


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Positions.


@pytest.mark.parametrize(("side", "window"), [(4, 2), (6, 3), (8, 8), (12, 4), (6, 1)])
def test_from_tiles_undoes_to_tiles(side, window):
    x = torch.randn(3, side**2, 5)
    assert torch.equal(from_tiles(to_tiles(x, window), window), x)


def test_to_tiles_puts_the_tokens_of_a_tile_in_a_row():
    numbers = torch.arange(36.0).view(1, 36, 1)
    tiles = to_tiles(numbers, 3).view(4, 9)
    expected = [numbers.view(6, 6)[y : y + 3, x : x + 3].flatten() for y in (0, 3) for x in (0, 3)]
    assert torch.equal(tiles, torch.stack(expected))


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_relative_bias_is_the_table_entry_of_every_offset(window):
    bias = RelativePositionBias(window, 2, "learned")
    table, width = bias.table.view(2, 2 * window - 1, 2 * window - 1), window
    for query in range(width**2):
        for key in range(width**2):
            down = query // width - key // width
            right = query % width - key % width
            expected = table[:, down + width - 1, right + width - 1]
            assert torch.equal(bias()[:, query, key], expected)


def test_relative_bias_can_be_learned_after_inference():
    bias = RelativePositionBias(3, 2, "learned")
    with torch.inference_mode():
        bias()
    (gradient,) = torch.autograd.grad(bias().sum(), bias.table)
    offsets = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])
    torch.testing.assert_close(gradient.view(2, 5, 5)[0], offsets[:, None] * offsets)


def test_learned_table_starts_small():
    table = RelativePositionBias(16, 4, "learned").table
    assert abs(table.std().item() / 0.02 - 1) < 0.1


def test_local_table_is_a_gaussian_of_growing_width_for_three_heads():
    table = local_table(4, 5).view(5, 7, 7)
    for head, width in enumerate((0.8, 1.6, 3.2)):
        assert table[head, 3, 3] == 0
        assert torch.isclose(table[head, 3 + 2, 3 - 1], torch.tensor(-5 / (2 * width**2)))
    assert not table[3:].any()
    assert local_table(16, 5).min() == -20


def test_neighbourhood_holds_the_square_around_a_token():
    mask = neighbourhood_mask(5, 1, "neighbourhood").view(25, 5, 5)
    assert mask[12].nonzero().tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2, 3)]
    assert mask[0].sum() == 4


def test_band_holds_the_neighbours_in_row_order():
    mask = neighbourhood_mask(4, 2, "band")
    assert [int(row.sum()) for row in mask[:4]] == [3, 4, 5, 5]
    assert mask[5].nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


# Attention.


def _by_hand(qkv, bias):
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _case(tiles=3, tokens=10, heads=2, width=5, with_bias=True):
    qkv = torch.randn(tiles, tokens, 3, heads, width).requires_grad_()
    bias = torch.randn(heads, tokens, tokens).requires_grad_() if with_bias else None
    return qkv, bias


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("twice", [True, False])
def test_attend_equals_attention_by_hand(with_bias, twice):
    qkv, bias = _case(with_bias=with_bias)
    torch.testing.assert_close(attend(qkv, bias, twice), _by_hand(qkv, bias))
    with torch.no_grad():
        torch.testing.assert_close(attend(qkv, bias, twice), _by_hand(qkv, bias))


@pytest.mark.parametrize("block", [1, 37, 200, 1 << 19])
def test_tiled_attention_has_the_gradients_of_plain_attention(block, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", block)
    qkv, bias = _case()
    weight = torch.randn(3, 10, 10)
    ours, theirs = (
        torch.autograd.grad((form(qkv, bias) * weight).sum(), (qkv, bias))
        for form in (tiled_attention, plain_attention)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("form", [tiled_attention, plain_attention])
def test_attention_in_bf16_stays_close(form):
    qkv, bias = _case(tokens=64, width=16)
    exact = torch.autograd.grad(plain_attention(qkv, bias).square().sum(), (qkv, bias))
    half = qkv.detach().bfloat16().requires_grad_()
    rough = torch.autograd.grad(form(half, bias).float().square().sum(), (half, bias))
    for a, b in zip(exact, rough, strict=True):
        assert (a - b.float()).norm() < 0.02 * a.norm()


def test_attend_takes_the_tiled_form_for_many_tokens():
    qkv, bias = _case(tiles=1, tokens=512, heads=1, width=2)
    assert "Tiled" in type(attend(qkv, bias).grad_fn).__name__
    assert "Tiled" not in type(attend(qkv, bias, twice=True).grad_fn).__name__


def test_tiled_attention_refuses_a_second_derivative():
    qkv, bias = _case()
    weight = torch.randn(3, 10, 10).requires_grad_()
    out = tiled_attention(qkv, bias)
    (first,) = torch.autograd.grad((out * weight).sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


def test_a_tile_of_the_whole_map_is_full_attention():
    small, whole = SelfAttention(8, 2, 4, "none"), SelfAttention(8, 2, None, "none")
    whole.load_state_dict(small.state_dict())
    x = torch.randn(2, 16, 8)
    torch.testing.assert_close(small(x), whole(x))


def test_tiles_do_not_see_each_other():
    attention = SelfAttention(8, 2, 2, "learned")
    x = torch.randn(1, 16, 8)
    changed = x.clone()
    changed[:, 4:8] += 1  # the second tile of four tokens
    differs = (attention(x) != attention(changed)).any(dim=-1).flatten()
    assert differs.nonzero().flatten().tolist() == [4, 5, 6, 7]


def test_a_mask_hides_keys_from_queries():
    attention = SelfAttention(8, 2, 4, "learned")
    attention.mask = neighbourhood_mask(4, 1, "neighbourhood")
    x = torch.randn(1, 16, 8)
    changed = x.clone()
    changed[:, 15] += 1
    differs = (attention(x) != attention(changed)).any(dim=-1).flatten()
    assert differs.nonzero().flatten().tolist() == [10, 11, 14, 15]


def test_read_is_the_first_token_of_forward():
    attention = SelfAttention(8, 2, None, "none")
    x = torch.randn(3, 17, 8)
    torch.testing.assert_close(attention.read(x), attention(x)[:, :1])


def test_cross_attention_equals_multihead_attention():
    ours = CrossAttention(8, 6, 2)
    theirs = nn.MultiheadAttention(8, 2, bias=True, kdim=6, vdim=6, batch_first=True)
    weights = (ours.query.weight, ours.key.weight, ours.value.weight)
    theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight = weights
    theirs.out_proj = ours.out
    x, context = torch.randn(2, 5, 8), torch.randn(2, 7, 6)
    torch.testing.assert_close(ours(x, context), x + theirs(x, context, context, need_weights=False)[0])


@pytest.mark.parametrize(
    ("kind", "module"),
    [("gelu", nn.GELU()), ("leaky-relu", nn.LeakyReLU(0.2))],
)
def test_mlp_uses_the_named_activation(kind, module):
    mlp = MLP(4, 8, kind)
    x = torch.randn(3, 4)
    torch.testing.assert_close(mlp(x), mlp.contract(module(mlp.expand(x))))


# Normalisation.


@pytest.mark.parametrize("kind", ["ln", "layer", "pn", "none"])
def test_norms_treat_every_image_alone(kind):
    norm = Normalization(kind, 6)
    x = torch.randn(4, 9, 6) * 3 + 1
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]))


def test_layer_norms_differ_by_their_bias():
    assert [name for name, _ in Normalization("ln", 6).named_parameters()] == ["weight", "bias"]
    assert [name for name, _ in Normalization("layer", 6).named_parameters()] == ["weight"]
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(Normalization("layer", 6)(x), F.layer_norm(x, (6,)))


@pytest.mark.parametrize("kind", ["pn"])
def test_pixel_norm_makes_the_mean_square_one(kind):
    x = torch.randn(2, 3, 64) * 5
    torch.testing.assert_close(Normalization(kind, 64)(x).square().mean(-1), torch.ones(2, 3))


@pytest.mark.parametrize("kind", ["ln", "layer", "pn"])
def test_gains_can_be_linear_in_z(kind):
    norm = Normalization(kind, 6, z_dim=3)
    x, z = torch.randn(2, 4, 6), torch.randn(2, 3)
    plain = Normalization("layer" if kind in ("ln", "layer") else "pn", 6)(x)
    expected = plain * (1 + norm.gain(z))[:, None]
    torch.testing.assert_close(norm(x, z), expected)


# Resampling.


def test_pixel_shuffle_on_tokens_is_pixel_shuffle_on_the_map():
    x = torch.randn(2, 16, 12)
    torch.testing.assert_close(to_map(pixel_shuffle(x)), nn.PixelShuffle(2)(to_map(x)))


def test_a_smoothed_image_is_free_of_what_repeats_with_its_patches():
    colours, pattern = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 2, 2)
    pattern = pattern - pattern.mean(dim=(2, 3), keepdim=True)
    plain, patterned = smooth(colours, 2), smooth(colours + pattern.tile(4, 4), 2)
    torch.testing.assert_close(patterned, plain)
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    wanted = torch.einsum("ncij,i,j->nc", colours[:, :, 2:5, 3:6], kernel, kernel)
    torch.testing.assert_close(plain[:, :, 3, 4], wanted)


@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_interpolation_keeps_channels_and_constants(kind):
    x = torch.full((2, 16, 3), 0.7)
    torch.testing.assert_close(upsample(x, kind), torch.full((2, 64, 3), 0.7))


def test_low_pass_keeps_constants_and_smooths_checks():
    torch.testing.assert_close(low_pass(torch.ones(1, 16, 2)), torch.ones(1, 16, 2))
    checks = (torch.arange(64) // 8 + torch.arange(64)).remainder(2).float().view(1, 64, 1) * 2 - 1
    assert low_pass(checks).std() < 0.8 * checks.std()


def test_pool_is_average_pooling_of_the_map():
    x = torch.randn(2, 64, 3)
    torch.testing.assert_close(pool(x), to_tokens(F.avg_pool2d(to_map(x), 2)))


@pytest.mark.parametrize(("patch", "overlap"), [(2, False), (4, False), (2, True), (4, True)])
def test_patch_embedding_is_a_strided_convolution(patch, overlap):
    embed = PatchEmbed(5, patch, overlap)
    images = torch.randn(2, 3, 16, 16)
    padding = patch // 2 if overlap else 0
    expected = F.conv2d(images, embed.weight, embed.bias, stride=patch, padding=padding)
    torch.testing.assert_close(embed(images), to_tokens(expected))
    assert embed.weight.shape[-1] == patch * (1 + overlap)


# Second derivatives.


def _second_order(form, *inputs):
    """Return the gradients of a projection of the gradient of a projection."""
    random = torch.Generator().manual_seed(1)
    out = form(*inputs)
    grad = torch.randn(out.shape, generator=random).to(out.dtype).requires_grad_()
    (first,) = torch.autograd.grad((out * grad).sum(), inputs[0], create_graph=True)
    projection = torch.randn(first.shape, generator=random).to(out.dtype)
    wanted = [value for value in (*inputs, grad) if value.requires_grad]
    return first, *torch.autograd.grad((first * projection).sum(), wanted, allow_unused=True)


@pytest.mark.parametrize("with_bias", [True, False])
def test_second_derivatives_of_layer_norm_are_the_library_s(with_bias, monkeypatch):
    monkeypatch.setattr(second_derivatives, "PIECE", 20)
    x = torch.randn(3, 4, 6, dtype=torch.float64).requires_grad_()
    weight = torch.randn(6, dtype=torch.float64).requires_grad_()
    bias = torch.randn(6, dtype=torch.float64) if with_bias else None
    ours = _second_order(lambda a, b: second_derivatives.layer_norm(a, b, bias, 1e-5), x, weight)
    theirs = _second_order(lambda a, b: F.layer_norm(a, (6,), b, bias, 1e-5), x, weight)
    torch.testing.assert_close(ours, theirs)


def test_second_derivatives_of_gelu_are_the_library_s(monkeypatch):
    monkeypatch.setattr(second_derivatives, "PIECE", 7)
    x = (torch.randn(5, 6, dtype=torch.float64) * 2).requires_grad_()
    torch.testing.assert_close(_second_order(second_derivatives.gelu, x), _second_order(F.gelu, x))


@pytest.mark.parametrize(
    "how", [{"padding": 1}, {"stride": 2, "padding": 1}, {"stride": 2, "transposed": True}, {"groups": 4}]
)
def test_second_derivatives_of_convolutions_are_the_library_s(how):
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 4 // how.get("groups", 1), 3, 3, dtype=torch.float64).requires_grad_()
    bias = torch.randn(4, dtype=torch.float64)

    def library(a, b):
        named = {name: value for name, value in how.items() if name != "transposed"}
        return (F.conv_transpose2d if how.get("transposed") else F.conv2d)(a, b, bias, **named)

    ours = _second_order(lambda a, b: second_derivatives.convolve(a, b, bias, **how), x, weight)
    torch.testing.assert_close(ours, _second_order(library, x, weight))


def test_a_convolution_s_first_derivatives_are_the_library_s_whatever_its_layout():
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(5, 4, 3, 3).requires_grad_(), torch.randn(5).requires_grad_()
    made = []
    for convolve in (second_derivatives.convolve, F.conv2d):
        out = convolve(x, weight, bias, padding=1)
        made.append((out, *torch.autograd.grad(out.square().sum(), (x, weight, bias))))
    torch.testing.assert_close(made[0], made[1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_in_bf16_has_the_gradients_of_fp32(layout):
    norm, x, weight = GroupNorm(2, 8), torch.randn(3, 8, 6, 6), torch.randn(3, 8, 6, 6)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = x.to(dtype).contiguous(memory_format=layout).requires_grad_()
        out = norm(leaf)
        assert out.dtype == dtype
        gradients.append(torch.autograd.grad((out.float() * weight).sum(), (leaf, norm.weight, norm.bias)))
    for exact, rough in zip(*gradients, strict=True):
        assert (exact - rough.float()).norm() < 0.02 * exact.norm()


def test_second_derivatives_of_gelu_work_in_bf16():
    x = torch.randn(50, 6)
    exact = _second_order(F.gelu, x.requires_grad_())
    rough = _second_order(second_derivatives.gelu, x.detach().bfloat16().requires_grad_())
    for a, b in zip(exact[1:], rough[1:], strict=True):
        assert b.dtype == torch.bfloat16
        assert (a - b.float()).norm() < 0.02 * a.norm()


def test_second_derivatives_through_a_gain_s_gradient_are_refused():
    x, weight = torch.randn(3, 6).requires_grad_(), torch.randn(6).requires_grad_()
    out = second_derivatives.layer_norm(x, weight, None, 1e-5)
    (first,) = torch.autograd.grad(out.square().sum(), weight, create_graph=True)
    with pytest.raises(NotImplementedError, match="gain or bias"):
        first.sum().backward()
