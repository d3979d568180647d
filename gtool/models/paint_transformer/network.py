"""Paint Transformer: networks that propose brush strokes for a patch of a photo.

Paint Transformer: Feed Forward Neural Painting with Stroke Prediction (Liu et al., ICCV 2021); compared with
Huage001/PaintTransformer, train/models/networks.py. `ReleasedPredictor` has its 9,072,902 parameters and, given
its weights, its outputs. `DensePredictor` is ours: no decoder and no queries, one stroke in every cell of a grid.

Both map a patch of the photo and of the canvas to `Proposals`. Deviations of the released network: dropout is 0
unless the config says otherwise (strokes are made without end, nothing can be learned by heart).

Axis letters: N patches, S proposals, L tokens, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtool.models.paint_transformer.config import CELLS, PATCH, PaintTransformerConfig
from gtool.nn.attention import MLP, SelfAttention
from gtool.nn.normalization import Normalization
from gtool.nn.precision import without_autocast
from gtool.nn.ranges import ramp

REACH = 1.5  # cells that a dense centre can leave the middle of its own by
SMALLEST, LARGEST = 0.03, 1.0  # sides of a dense stroke, in patches
INIT_STD = 0.02


class Proposals(NamedTuple):
    """Strokes for N patches.

    shape_params: (N, S, 5) x, y, width, height in patches, theta in units of pi.
    logits: (N, S), of being painted.
    """

    shape_params: Tensor
    logits: Tensor


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    is_block = True  # for train.recompute

    def __init__(self, config: PaintTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = Normalization("ln", width)
        self.attention = SelfAttention(width, config.heads, config.grid, "learned")
        self.norm2 = Normalization("ln", width)
        self.mlp = MLP(width, config.mlp_ratio * width, "leaky-relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DensePredictor(nn.Module):
    """Photo, canvas and their difference -> tokens -> strokes, one in each of 8 x 8 cells; a token has 1 or 4 cells."""

    def __init__(self, config: PaintTransformerConfig) -> None:
        super().__init__()
        self.config = config
        stem, width = config.stem_width, config.width
        stride = PATCH // 4 // config.grid
        self.stem = nn.Sequential(
            nn.Conv2d(9, stem, 3, stride=2, padding=1),
            nn.GroupNorm(8, stem),
            nn.ReLU(),
            nn.Conv2d(stem, 2 * stem, 3, stride=2, padding=1),
            nn.GroupNorm(8, 2 * stem),
            nn.ReLU(),
            nn.Conv2d(2 * stem, width, 3, stride=stride, padding=1),
        )
        self.position = nn.Parameter(INIT_STD * torch.randn(config.grid**2, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = Normalization("ln", width)
        self.share = CELLS // config.grid  # cells a side of a token
        self.head = nn.Linear(width, 7 * self.share**2)
        nn.init.normal_(self.head.weight, std=INIT_STD)
        # Starts as upright strokes of about a third of the patch, rarely painted.
        start = torch.tensor([0.0, 0.0, -0.8, -0.8, 1.0, 0.0, -1.5], device="cpu")
        self.head.bias.data.copy_(start.repeat(self.share**2))
        cells = (torch.arange(CELLS, device="cpu") + 0.5) / CELLS
        centres = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), dim=-1).view(-1, 2)
        self.register_buffer("centres", centres, persistent=False)

    centres: Tensor

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Return one patch of a photo and of a canvas."""
        patch = ramp(self.position, 3, PATCH, PATCH)
        return patch, patch

    def forward(self, target: Tensor, canvas: Tensor) -> Proposals:
        """Propose strokes for patches of the image and of the canvas, (N, 3, 32, 32) in [0, 1] each."""
        seen = torch.cat([2 * target - 1, 2 * canvas - 1, 2 * (target - canvas)], dim=1)
        x = self.stem(seen).flatten(2).transpose(1, 2)  # (N, L, C)
        x = x + self.position
        for block in self.blocks:
            x = block(x)
        with without_autocast(x):
            out = self._by_cell(self.head(self.norm(x.float()).float()))  # (N, S, 7)
            centre = self.centres + REACH / CELLS * out[..., :2].tanh()
            sides = SMALLEST + (LARGEST - SMALLEST) * out[..., 2:4].sigmoid()
            # Half the polar angle: strokes look the same after half a turn.
            theta = torch.atan2(out[..., 5], out[..., 4] + 1e-6) / (2 * torch.pi)
            shape_params = torch.cat([centre, sides, theta.remainder(1.0).unsqueeze(-1)], dim=-1)
        return Proposals(shape_params, out[..., 6])

    def _by_cell(self, out: Tensor) -> Tensor:
        """What tokens say of their cells, (N, L, 7 cells), in the order of the cells of the patch: (N, S, 7)."""
        n, grid, share = out.shape[0], self.config.grid, self.share  # shapes, unlike len, can be traced
        return out.view(n, grid, grid, share, share, 7).transpose(2, 3).reshape(n, CELLS**2, 7)


class ReleasedPredictor(nn.Module):
    """The network of the paper, with the names of its released weights."""

    def __init__(self, config: PaintTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = 256
        self.enc_img = _encoder()
        self.enc_canvas = _encoder()
        self.conv = nn.Conv2d(256, width, 1)
        self.transformer = nn.Transformer(width, 8, 3, 3, 2048, config.dropout, batch_first=True)
        self.linear_param = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 5)
        )
        self.linear_decider = nn.Linear(width, 1)
        self.query_pos = nn.Parameter(torch.rand(8, width))
        self.row_embed = nn.Parameter(torch.rand(8, width // 2))
        self.col_embed = nn.Parameter(torch.rand(8, width // 2))
        self.apply(_init_released)
        # At first every query is the mean stroke of the training, and painted.
        last = self.linear_param[-1]
        assert isinstance(last, nn.Linear)
        last.bias.data.copy_(torch.tensor([0.5, 0.5, 0.4, 0.4, 0.5]))

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Return one patch of a photo and of a canvas."""
        patch = ramp(self.query_pos, 3, PATCH, PATCH)
        return patch, patch

    def forward(self, target: Tensor, canvas: Tensor) -> Proposals:
        """As `DensePredictor.forward`; sides may come out as anything, and are held above 0.02 of a patch."""
        x = torch.cat([self.enc_img(target), self.enc_canvas(canvas)], dim=1)
        x = self.conv(x).flatten(2).transpose(1, 2)  # (N, 64, C)
        columns = self.col_embed[None, :, :].expand(8, -1, -1)  # the column's half first, as released
        rows = self.row_embed[:, None, :].expand(-1, 8, -1)
        x = x + torch.cat([columns, rows], dim=-1).flatten(0, 1)
        x = self.transformer(x, self.query_pos.expand(x.shape[0], -1, -1))  # (N, 8, C)
        raw, logits = self.linear_param(x).float(), self.linear_decider(x).float().squeeze(-1)
        shape_params = torch.cat([raw[..., :2], raw[..., 2:4].clamp(min=0.02), raw[..., 4:]], dim=-1)
        return Proposals(shape_params, logits)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2)):
        convolution = nn.Conv2d(before, after, 3, stride)
        layers += [nn.ReflectionPad2d(1), convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def _init_released(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases of convolutions and linear maps, norms N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INIT_STD)
        nn.init.zeros_(module.bias)


def build_predictor(config: PaintTransformerConfig) -> nn.Module:
    """Build the predictor that a config describes."""
    return DensePredictor(config) if config.architecture == "dense" else ReleasedPredictor(config)


def build(config: PaintTransformerConfig) -> tuple[nn.Module]:
    """Build all networks of the model: one."""
    return (build_predictor(config),)
