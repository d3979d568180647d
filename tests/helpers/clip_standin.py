"""A network of CLIP's image encoder with random weights, written independently, and the files that carry it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder; the defaults are ViT-B/32."""

    side: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    size: int = 512

    @property
    def config(self) -> PretrainedConfig:
        from transformers import CLIPVisionConfig  # takes a second

        return CLIPVisionConfig(
            image_size=self.side,
            patch_size=self.patch,
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            projection_dim=self.size,
        )


VIT_B_32 = Shape()
VIT_L_14 = Shape(side=336, patch=14, width=1024, layers=24, heads=16, size=768)
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
TINY = Shape(side=64, patch=16, width=128, layers=3, heads=2, size=24)


class Gelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Layer(nn.Module):
    """One layer of torch's own attention, with OpenAI's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", Gelu())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Visual(nn.Module):
    """The image encoder as the paper has it; its state dict has OpenAI's names."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.conv1 = nn.Conv2d(3, width, shape.patch, stride=shape.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((shape.side // shape.patch) ** 2 + 1, width) / 4)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*[Layer(width, shape.heads) for _ in range(shape.layers)])
        self.proj = nn.Parameter(torch.randn(width, shape.size) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.transformer.resblocks(self.ln_pre(x))
        return self.ln_post(x)[:, 0] @ self.proj


@torch.no_grad()
def build(shape: Shape = TINY, seed: int = 0) -> Visual:
    """Return an encoder whose weights are all of use, and all numbers that fp16 can hold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Visual(shape).eval()
        for name, parameter in network.named_parameters():
            if name.endswith("bias") or "ln_" in name:
                parameter.add_(torch.randn_like(parameter) / 10)
            parameter.copy_(parameter.half().float())
    return network


def openai_state(network: Visual) -> dict[str, Tensor]:
    """Return OpenAI's names, with a text tower of the least size that its package accepts."""
    state = {f"visual.{name}": tensor for name, tensor in network.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        text = Layer(64, 1)
    state |= {f"transformer.resblocks.0.{name}": tensor for name, tensor in text.state_dict().items()}
    for name, shape in {"token_embedding.weight": (8, 64), "positional_embedding": (4, 64)}.items():
        state[name] = torch.zeros(shape)
    state |= {"ln_final.weight": torch.ones(64), "ln_final.bias": torch.zeros(64)}
    return state | {"text_projection": torch.zeros(64, network.proj.shape[1]), "logit_scale": torch.ones([])}


def hugging_face_state(network: Visual) -> dict[str, Tensor]:
    """Return Hugging Face's names."""
    state = network.state_dict()
    plain = {
        "class_embedding": "embeddings.class_embedding",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
    }
    found = {"visual_projection.weight": state.pop("proj").T}
    for name, tensor in state.items():
        if "in_proj" in name:
            layer, end = name.split(".")[2], name.split("_")[-1]
            for part, share in zip("qkv", tensor.chunk(3), strict=True):
                found[f"vision_model.encoder.layers.{layer}.self_attn.{part}_proj.{end}"] = share
            continue
        theirs = plain.get(name, name).replace("transformer.resblocks", "encoder.layers")
        theirs = theirs.replace("attn.out_proj", "self_attn.out_proj")
        theirs = theirs.replace("ln_pre", "pre_layrnorm").replace("ln_post", "post_layernorm")
        theirs = theirs.replace("ln_1", "layer_norm1").replace("ln_2", "layer_norm2")
        found[f"vision_model.{theirs.replace('c_fc', 'fc1').replace('c_proj', 'fc2')}"] = tensor
    found["vision_model.embeddings.position_ids"] = torch.arange(len(state["positional_embedding"]))
    return {name: tensor.contiguous() for name, tensor in found.items()}


class Holder(nn.Module):
    """Something to script that holds tensors under given names and does nothing with them."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_script(state: dict[str, Tensor], path: Path) -> Path:
    """Write a TorchScript archive with these tensors as halves, as OpenAI publishes it."""
    top = Holder()
    for name, tensor in state.items():
        *folders, last = name.split(".")
        parent: nn.Module = top
        for folder in folders:
            if folder not in dict(parent.named_children()):
                parent.add_module(folder, Holder())
            parent = parent.get_submodule(folder)
        parent.register_parameter(last, nn.Parameter(tensor.half(), requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(top).save(str(path))
    return path


def save_all(network: Visual, folder: Path) -> dict[str, Path]:
    """Write Hugging Face's layout as both kinds of file; return them by what they are."""
    theirs = hugging_face_state(network)
    torch.save(theirs, folder / "pytorch_model.bin")
    save_file(theirs, folder / "model.safetensors")
    return {"pickled": folder / "pytorch_model.bin", "safetensors": folder / "model.safetensors"}
