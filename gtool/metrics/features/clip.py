"""CLIP's image encoder ViT-B/32, whose features CLIP-FID compares.

Radford et al. 2021 (Learning Transferable Visual Models From Natural Language Supervision), section 2.4 and table 20;
openai/CLIP, clip/model.py. Kynkaanniemi et al. 2023 (The Role of ImageNet Classes in Frechet Inception Distance)
compare its features where Inception's follow ImageNet's classes. 87.8 M parameters, 512 features, which are not
brought to unit length, as in clean-fid 0.1.35 (clip_features.py).

Read from OpenAI's TorchScript file, from a state dict with its names, or from Hugging Face's, where query, key and
value are three matrices. Halves become fp32. The factor of QuickGELU, x sigmoid(1.702 x), is folded into the
matrices around it, which leaves the SiLU that torch has.

N images, L tokens, D width, K heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.metrics.features.packed import DTYPES, Dtype
from gtool.metrics.features.resize_clip import to_square
from gtool.metrics.features.weight_files import read_tensors
from gtool.metrics.images import in_batches
from gtool.metrics.precision import full_fp32

SIZE = 512
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of pixels in [0, 1], as the network was trained
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
QUICK = 1.702


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder; the defaults are ViT-B/32."""

    side: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    size: int = SIZE

    @property
    def num_patches(self) -> int:
        return (self.side // self.patch) ** 2


VIT_B_32 = Shape()


class Block(nn.Module):
    """Attention and MLP, each on a normalised input and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        """Return the first `kept` of the tokens (N, L, D), or all."""
        qkv = self.qkv(self.norm_1(x)).unflatten(2, (3, self.heads, -1))  # (N, L, 3, K, D / K)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query[:, :, :kept], key, value)
        x = x[:, :kept] + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.silu(self.up(self.norm_2(x))))


class Encoder(nn.Module):
    """From the network's input (N, 3, 224, 224) to 512 features."""

    def __init__(self, shape: Shape = VIT_B_32) -> None:
        super().__init__()
        self.shape = shape
        self.patches = nn.Linear(3 * shape.patch**2, shape.width, bias=False)
        self.class_token = nn.Parameter(torch.empty(shape.width))
        self.positions = nn.Parameter(torch.empty(1 + shape.num_patches, shape.width))
        self.norm_before = nn.LayerNorm(shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.layers))
        self.norm_after = nn.LayerNorm(shape.width)
        self.projection = nn.Linear(shape.width, shape.size, bias=False)

    @torch.no_grad()
    @full_fp32()
    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 512) fp32 features.

        The floor of ViT-B/32 is 8.3 GFLOP an image: 50 tokens of 768 numbers take 12 x 768^2 multiplications each in 11
        blocks and 3 x 768^2 in the last, of which only the class token goes on; 49 patches 3,072 x 768 each, attention
        2 x 50^2 x 768 a block. All but the last, 1 %, are large matrix products.
        """
        dtype, side = self.class_token.dtype, self.shape.patch
        x = x.to(dtype).unfold(2, side, side).unfold(3, side, side)  # (N, 3, h, w, patch, patch)
        x = self.patches(x.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))  # (N, L - 1, D)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], 1) + self.positions
        x = self.norm_before(x)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, kept=1)
        features: Tensor = self.projection(self.norm_after(x[:, 0]))
        return features.float()


class ClipExtractor:
    """From uint8 images of any size to CLIP's features, by clean-fid's protocol.

    dtype: of the layers; `bf16` for previews only.
    """

    mode = "clean"

    def __init__(self, network: Encoder, dtype: Dtype = "fp32") -> None:
        self.network = network.to(DTYPES[dtype])
        self.device = next(network.parameters()).device
        self.dtype = dtype
        self.size = network.shape.size

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return (N, 512) fp32 features on the CPU.

        images: uint8 (N, 3, H, W), or N images (3, H, W) of any sizes.
        """
        # Exact sums take fp64, which Apple's processor does not have.
        where = torch.device("cpu") if self.device.type == "mps" else self.device
        side = self.network.shape.side
        pixels = torch.cat([to_square(batch.to(where), side) for batch in in_batches(images)]).to(self.device)
        mean, deviation = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        features: Tensor = self.network(pixels.div_(255).sub_(mean).div_(deviation))
        return features.cpu()


# Files.


@dataclass(frozen=True)
class Layout:
    """Whose names a file has: theirs for ours, several where they are joined; `layer` is the prefix of a block."""

    names: Mapping[str, Sequence[str]]
    layer: str
    layer_names: Mapping[str, Sequence[str]]


def _pairs(**modules: str) -> dict[str, list[str]]:
    """Return names of weights and biases for names of modules; theirs may be several words."""
    return {
        f"{ours}.{end}": [f"{one}.{end}" for one in theirs.split()]
        for ours, theirs in modules.items()
        for end in ("weight", "bias")
    }


OPENAI = Layout(
    names={
        "patches.weight": ["conv1.weight"],
        "class_token": ["class_embedding"],
        "positions": ["positional_embedding"],
        "projection.weight": ["proj"],
        **_pairs(norm_before="ln_pre", norm_after="ln_post"),
    },
    layer="transformer.resblocks",
    layer_names={
        "qkv.weight": ["attn.in_proj_weight"],
        "qkv.bias": ["attn.in_proj_bias"],
        **_pairs(norm_1="ln_1", out="attn.out_proj", norm_2="ln_2", up="mlp.c_fc", down="mlp.c_proj"),
    },
)
HUGGING_FACE = Layout(
    names={
        "patches.weight": ["vision_model.embeddings.patch_embedding.weight"],
        "class_token": ["vision_model.embeddings.class_embedding"],
        "positions": ["vision_model.embeddings.position_embedding.weight"],
        "projection.weight": ["visual_projection.weight"],
        **_pairs(norm_before="vision_model.pre_layrnorm", norm_after="vision_model.post_layernorm"),
    },
    layer="vision_model.encoder.layers",
    layer_names={
        **_pairs(qkv="self_attn.q_proj self_attn.k_proj self_attn.v_proj", out="self_attn.out_proj"),
        **_pairs(norm_1="layer_norm1", norm_2="layer_norm2", up="mlp.fc1", down="mlp.fc2"),
    },
)


def load_clip(path: Path, device: torch.device | str = "cpu", shape: Shape = VIT_B_32) -> Encoder:
    """Read the image encoder of one of the known layouts; CheckpointError for anything else."""
    tensors = read_tensors(path)
    layout, prefix = _recognise(tensors, path)
    with torch.device("meta"):
        network = Encoder(shape)
    state = {}
    for name, expected in network.state_dict().items():
        theirs = [prefix + one for one in _theirs(layout, name)]
        state[name] = _joined(tensors, theirs, expected.shape, layout, path)
    for number in range(shape.layers):
        for end in ("weight", "bias"):
            state[f"blocks.{number}.up.{end}"] *= QUICK  # copies, all of them
        state[f"blocks.{number}.down.weight"] /= QUICK
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False).to(device)


def _recognise(tensors: Mapping[str, Tensor], path: Path) -> tuple[Layout, str]:
    """Return whose names these are, and what stands before each."""
    for layout, prefix in ((OPENAI, "visual."), (OPENAI, ""), (HUGGING_FACE, "")):
        if prefix + layout.names["class_token"][0] in tensors:
            return layout, prefix
    names = " nor ".join(
        f"`{name}`" for name in ("visual.class_embedding", *HUGGING_FACE.names["class_token"])
    )
    raise CheckpointError(f"{path}: not CLIP's image encoder: has neither {names}")


def _theirs(layout: Layout, name: str) -> list[str]:
    if not name.startswith("blocks."):
        return list(layout.names[name])
    _, number, part = name.split(".", 2)
    return [f"{layout.layer}.{number}.{one}" for one in layout.layer_names[part]]


def _joined(
    tensors: Mapping[str, Tensor], names: Sequence[str], shape: torch.Size, layout: Layout, path: Path
) -> Tensor:
    """Return one of our tensors in fp32."""
    parts = []
    for name in names:
        part = tensors.get(name)
        if not isinstance(part, Tensor):
            raise CheckpointError(f"{path}: not CLIP's ViT-B/32: `{name}` is missing")
        if not bool(torch.isfinite(part).all()):
            raise CheckpointError(f"{path}: `{name}` holds values that are not finite")
        part = part.detach().float()
        if layout is OPENAI and name.endswith("proj"):
            part = part.T.contiguous()  # it stands on the right there
        if part.ndim == 4:
            part = part.flatten(1)
        if part.shape != (shape[0] // len(names), *shape[1:]):
            raise CheckpointError(
                f"{path}: not CLIP's ViT-B/32: `{name}` is of the size {tuple(tensors[name].shape)}"
            )
        parts.append(part)
    return torch.cat(parts)
