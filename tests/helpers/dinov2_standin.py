"""A network of DINOv2's shape with random weights, written independently, under the names of its authors."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

PATCH, CELLS = 14, 37  # pixels of a patch, patches a side in training
THEIRS = {  # Hugging Face's names for the authors'
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "blocks.": "encoder.layer.",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp, self.ls1, self.ls2 = nn.Module(), nn.Module(), nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.ls1.gamma, self.ls2.gamma = (nn.Parameter(torch.randn(width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        N, T, D = x.shape
        q, k, v = self.attn.qkv(self.norm1(x)).view(N, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weight = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.ls1.gamma * self.attn.proj((weight @ v).transpose(1, 2).reshape(N, T, D))
        return x + self.ls2.gamma * self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Dinov2(nn.Module):
    """From normalised pixels (N, 3, H, W), sides divisible by 14, to the class token (N, width)."""

    def __init__(self, width: int = 384, layers: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.cls_token, self.mask_token = (
            nn.Parameter(torch.randn(1, 1, width)),
            nn.Parameter(torch.zeros(1, width)),
        )
        self.pos_embed = nn.Parameter(torch.randn(1, CELLS**2 + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.blocks = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x)
        scale = [(side + 0.1) / CELLS for side in x.shape[2:]]
        grid = self.pos_embed[:, 1:].unflatten(1, (CELLS, CELLS)).permute(0, 3, 1, 2)
        x = x + F.interpolate(grid, scale_factor=scale, mode="bicubic")
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, x.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


@torch.no_grad()
def build(width: int = 384, layers: int = 12, seed: int = 0) -> Dinov2:
    """Return a network whose weights are all of use."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Dinov2(width, layers, width // 64).eval().requires_grad_(False)
        for name, parameter in network.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) / 10)
    return network


def save(network: Dinov2, path: Path) -> Path:
    """Write the weights under Hugging Face's names."""
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in THEIRS.items():
            name = name.replace(ours, theirs)
        if ".attn.qkv." in name:
            head, _, end = name.partition(".attn.qkv.")
            names = [f"{head}.attention.attention.{part}.{end}" for part in ("query", "key", "value")]
            state |= dict(zip(names, tensor.chunk(3), strict=True))
        else:
            state[f"layer{name}" if name.startswith("norm.") else name] = tensor
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path
