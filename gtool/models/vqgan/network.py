"""Tokenizers: images -> a grid of codes -> images.

Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach, Ommer 2021, arXiv 2012.09841), section 3.1;
compared with CompVis/taming-transformers at its last commit (Nov 2022), taming/modules/diffusionmodules/model.py and
taming/models/vqgan.py. Parameters of the released sizes: 72.14 M with 1024 codes, 73.98 M with 8192, 76.07 M with
16384; the discriminator 2,765,633. `kind = "palette"` is the tokenizer of image-GPT (Chen et al. 2020,
openai/image-gpt): a pixel's code is the nearest colour of a palette.

Deviations from the release, with their reasons:
- queries, keys and values of attention are one convolution, which is faster and nothing else;
- codes have the shape of their grid;
- on a CPU, what is enlarged and then convolved is one transposed convolution: the same numbers but for rounding, from
  4/9 of the products.

All convolutions: images of any size that `down` divides can be encoded, with attention at the same levels.

Axis letters: N images, C channels, H W pixels, h w grid of codes, d width of a code's vector, K codebook size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.errors import DataError
from gtool.models.vqgan.config import QuantizerConfig, VQGANConfig
from gtool.models.vqgan.discriminator import PatchDiscriminator
from gtool.nn.attention import attend
from gtool.nn.normalization import GroupNorm, channels_last_on_cpu
from gtool.nn.precision import without_autocast
from gtool.nn.quantizers import Codebook, CosineCodebook, GumbelCodebook, nearest
from gtool.nn.ranges import ramp

__all__ = ["PaletteTokenizer", "PatchDiscriminator", "Tokenized", "Tokenizer", "build", "make_tokenizer"]

NORM_EPS = 1e-6  # released
MOST_TRANSPOSED = 256  # channels


class Tokenized(NamedTuple):
    """What became of images.

    reconstruction: (N, C, H, W) float32, near [-1, 1] but not bounded.
    codes: (N, h, w) int64.
    quantizer_loss: scalar.
    vectors: (N, d, h, w) float32, before quantization.
    """

    reconstruction: Tensor
    codes: Tensor
    quantizer_loss: Tensor
    vectors: Tensor


class SwishNorm(GroupNorm):
    """Group norm, then x sigmoid(x) unless `plain`."""

    def __init__(self, groups: int, channels: int, *, plain: bool = False) -> None:
        super().__init__(groups, channels, NORM_EPS)
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        x = super().forward(x)
        return x if self.plain else F.silu(x)


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them."""

    is_block = True  # for train.recompute

    def __init__(self, inputs: int, outputs: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = SwishNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = SwishNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        y = self.conv1(self.norm1(x))
        y = self.conv2(self.dropout(self.norm2(y)))
        return self.skip(x) + y


class AttentionBlock(nn.Module):
    """Every place attends to all places, with one head."""

    is_block = True  # for train.recompute

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = SwishNorm(groups, channels, plain=True)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        n, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (N, H W, 3 C)
        found = attend(qkv.reshape(n, height * width, 3, 1, channels), None)  # (N, H W, C)
        return x + self.out(found.transpose(1, 2).reshape(n, channels, height, width))


class Halving(nn.Module):
    """Half the side: zeros at right and bottom alone, then every second place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / 2, W / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Twice the side: every place four times, then a convolution.

    Pixels of the larger map see 2 x 2 different places, so that the two together are a transposed convolution with the
    weights that meet at one place summed up. On a CPU that takes half the time, forwards and backwards, in both
    precisions; with 512 channels the sums cost more than they save.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2 H, 2 W)."""
        weight, bias = self.conv.weight, self.conv.bias
        if x.device.type != "cpu" or len(weight) > MOST_TRANSPOSED:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        turned = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))  # (C, C', 5, 5)
        rows = turned[:, :, :-1] + turned[:, :, 1:]
        summed = rows[..., :-1] + rows[..., 1:]  # (C, C', 4, 4)
        return F.conv_transpose2d(x, summed, bias, stride=2, padding=1)


class Level(nn.Module):
    """Blocks at one side, attention after each where there is any, then a change of the side, but at the last."""

    def __init__(self, inputs: int, outputs: int, count: int, attends: bool, config: VQGANConfig) -> None:
        super().__init__()
        groups = config.norm_groups
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs if number == 0 else outputs, outputs, groups, config.dropout)
            for number in range(count)
        )
        self.attentions = nn.ModuleList(
            AttentionBlock(outputs, groups) for _ in range(count if attends else 0)
        )
        self.resample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        for number, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[number](x)
        return self.resample(x)


class Middle(nn.Module):
    """Blocks at the lowest level, attention after the first."""

    def __init__(self, channels: int, config: VQGANConfig) -> None:
        super().__init__()
        groups = config.norm_groups
        self.blocks = nn.ModuleList(
            ResidualBlock(channels, channels, groups, config.dropout) for _ in range(config.middle_blocks)
        )
        self.attention = AttentionBlock(channels, groups) if config.middle_attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same."""
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == 0:
                x = self.attention(x)
        return x


class Encoder(nn.Module):
    """Image -> vectors, as wide as `z_channels`."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.channels, *config.level_channels]
        self.conv_in = nn.Conv2d(config.image_channels, config.channels, 3, padding=1)
        self.levels = nn.ModuleList()
        for before, width, side in zip(widths, widths[1:], config.sides, strict=False):
            level = Level(before, width, config.blocks, side in config.attention_sides, config)
            if len(self.levels) < len(config.sides) - 1:
                level.resample = Halving(width)
            self.levels.append(level)
        self.middle = Middle(widths[-1], config)
        self.norm_out = SwishNorm(config.norm_groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, z_channels, h, w)."""
        x = self.conv_in(channels_last_on_cpu(images))
        for level in self.levels:
            x = level(x)
        return self.conv_out(self.norm_out(self.middle(x)))


class Decoder(nn.Module):
    """Vectors, as wide as `z_channels` -> image, not bounded. Levels are in the order of work: the coarsest first."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = config.level_channels[::-1]
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], config)
        self.levels = nn.ModuleList()
        for before, width, side in zip([widths[0], *widths], widths, config.sides[::-1], strict=False):
            level = Level(before, width, config.blocks_up, side in config.attention_sides, config)
            if len(self.levels) < len(config.sides) - 1:
                level.resample = Doubling(width)
            self.levels.append(level)
        self.norm_out = SwishNorm(config.norm_groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.image_channels, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, z_channels, h, w) -> (N, C, H, W)."""
        x = self.middle(self.conv_in(channels_last_on_cpu(vectors)))
        for level in self.levels:
            x = level(x)
        return self.conv_out(self.norm_out(x))


class Tokenizer(nn.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.down = config.codebook_size, config.down
        self.resolution, self.image_channels = config.resolution, config.image_channels
        width = config.quantizer.dim
        self.encoder = Encoder(config)
        self.to_codes = nn.Conv2d(config.z_channels, width, 1)
        self.quantizer = make_quantizer(config.quantizer)
        self.from_codes = nn.Conv2d(width, config.z_channels, 1)
        self.decoder = Decoder(config)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution, at which the losses of a training are compared."""
        weight = self.decoder.conv_out.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, images: Tensor) -> Tokenized:
        """Encode and decode images (N, C, H, W) in [-1, 1].

        Raises:
            DataError: sizes that `down` does not divide, or another number of channels.
        """
        vectors = self._vectors(images)
        quantized = self.quantizer(vectors)
        reconstruction = self.decoder(self.from_codes(quantized.vectors))
        return Tokenized(reconstruction.float(), quantized.codes, quantized.loss, vectors)

    def example_inputs(self) -> tuple[Tensor]:
        """Return one image."""
        side = self.resolution
        return (ramp(self.last_layer, self.image_channels, side, side),)

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes (N, h, w) of images (N, C, H, W) in [-1, 1]; errors as of `forward`."""
        return self.quantizer(self._vectors(images)).codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images (N, C, H, W) float32 of codes (N, h, w) of any grid, not bounded to [-1, 1]."""
        vectors = F.embedding(codes, self.quantizer.embedding())  # (N, h, w, d)
        decoded: Tensor = self.decoder(self.from_codes(vectors.movedim(-1, 1)))
        return decoded.float()

    def _vectors(self, images: Tensor) -> Tensor:
        check_images(images, self.image_channels, self.down)
        vectors: Tensor = self.to_codes(self.encoder(images))
        return vectors.float()


class PaletteTokenizer(nn.Module):
    """A pixel's code is the nearest colour of a palette, which `fit` finds; nothing is learned by gradients."""

    palette: Tensor

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.down = config.codebook_size, config.down
        self.resolution, self.image_channels = config.resolution, config.image_channels
        self.register_buffer("palette", torch.zeros(config.palette_size, 3))

    def forward(self, images: Tensor) -> Tokenized:
        """As `Tokenizer.forward`; the vectors are the images."""
        codes = self.encode(images)
        return Tokenized(self.decode(codes), codes, images.new_zeros(()), images.float())

    def example_inputs(self) -> tuple[Tensor]:
        """Return one image."""
        return (ramp(self.palette, 3, self.resolution, self.resolution),)

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes (N, H, W) of images (N, 3, H, W) in [-1, 1]."""
        check_images(images, 3, 1)
        with without_autocast(images):
            n, _, height, width = images.shape
            return nearest(_pixels(images), self.palette).view(n, height, width)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images (N, 3, H, W) float32 of codes (N, H, W)."""
        return F.embedding(codes, self.palette).movedim(-1, 1)

    @torch.no_grad()
    def fit(
        self, images: Tensor, generator: torch.Generator, *, most: int = 2**16, rounds: int = 20
    ) -> float:
        """Find the palette by k-means on `most` pixels of images (N, 3, H, W) in [-1, 1].

        Returns the mean squared distance of a pixel to its colour; DataError for fewer colours than there are entries.
        """
        pixels = _pixels(images)
        pixels = pixels[torch.randperm(len(pixels), generator=generator)[:most].to(pixels.device)]
        colours = torch.unique(pixels, dim=0)
        size = self.codebook_size
        if len(colours) < size:
            raise DataError(
                f"the images have {len(colours):,} different colours, too few for a palette of {size:,}; "
                "set model.palette_size"
            )
        palette = colours[torch.randperm(len(colours), generator=generator)[:size].to(colours.device)]
        for _ in range(rounds):
            palette = _moved(palette, pixels)
        self.palette.copy_(palette)
        return float((pixels - palette[nearest(pixels, palette)]).square().sum(dim=1).mean())


def _moved(palette: Tensor, pixels: Tensor) -> Tensor:
    """One round of k-means; a colour that nothing is nearest to moves to one of the pixels that are farthest off."""
    found = nearest(pixels, palette)
    counts = torch.bincount(found, minlength=len(palette))
    sums = torch.zeros_like(palette).index_add_(0, found, pixels)
    palette = sums / counts.clamp(min=1).unsqueeze(1)
    empty = (counts == 0).nonzero().squeeze(1)
    farthest = (pixels - palette[found]).square().sum(dim=1).topk(len(empty)).indices
    palette[empty] = pixels[farthest]
    return palette


def _pixels(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N H W, 3) float32."""
    return images.float().movedim(1, -1).flatten(0, -2)


def check_images(images: Tensor, channels: int, down: int) -> None:
    """Refuse images that a tokenizer cannot take.

    Raises:
        DataError: sizes that `down` does not divide, or another number of channels.
    """
    _, given, height, width = images.shape
    if given != channels:
        raise DataError(f"images of {given} channels; this tokenizer takes {channels}")
    if height % down or width % down:
        raise DataError(
            f"images of {width} x {height} px: this tokenizer needs sides that are multiples of {down}"
        )


def make_quantizer(config: QuantizerConfig) -> Codebook | GumbelCodebook:
    """Build the quantizer that a config describes."""
    if config.kind == "gumbel":
        return GumbelCodebook(config.size, config.dim)
    kind = CosineCodebook if config.kind == "cosine" else Codebook
    return kind(config.size, config.dim, beta=config.beta, legacy=config.legacy)


def make_tokenizer(config: VQGANConfig) -> Tokenizer | PaletteTokenizer:
    """Build the tokenizer that a config describes."""
    return PaletteTokenizer(config) if config.kind == "palette" else Tokenizer(config)


def build(config: VQGANConfig) -> tuple[Tokenizer, PatchDiscriminator] | tuple[PaletteTokenizer]:
    """Build all networks from torch's current random stream: two, or one palette."""
    if config.kind == "palette":
        return (PaletteTokenizer(config),)
    return Tokenizer(config), PatchDiscriminator(config)
