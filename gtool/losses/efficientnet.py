"""EfficientNet-Lite0, trained for ImageNet: what a small network sees in images, at five scales.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (Tan and Le 2019), in its variant for small
devices (tensorflow/tpu, models/official/efficientnet/lite): ReLU6 and no squeeze-and-excitation. The weights are
Google's, under Apache-2.0. They come with the package, as the blocks alone: no last convolution, no classifier, batch
norms folded into the convolutions before them, in fp16. tests/benchmarks/efficientnet_file.py made the file. Against
timm's tf_efficientnet_lite0 with the original weights, features of 11 photos differ by 6e-5 of their standard
deviation at most before they are stored in fp16, and by 5e-3 (root mean square) after.

Axis letters: N images, C channels, H W pixels.
"""

from functools import cache
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.io.files import digest_of
from gtool.io.run_folder import shipped_weights
from gtool.io.weights import read_safetensors, restore

NAME = "efficientnet-lite0"
SHA256 = "9c503252aff2c93a838d692265311c0748f19f65999943501437a3eba09a25b7"
# Stages: blocks, width, kernel, stride, and by how much a block is wider inside.
STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
STEM = 32
SCALES = (0, 1, 2, 4, 6)  # the last stages at each size: 1/2, 1/4, 1/8, 1/16, 1/32 of the image
CHANNELS = tuple(STAGES[stage][1] for stage in SCALES)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: size / stride rounded up, an odd pixel at the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        pads = []
        for size in (input.shape[3], input.shape[2]):
            missing = max(0, (ceil(size / self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(input, pads) if any(pads) else input)


class InvertedResidual(nn.Module):
    """Wider by 1 x 1, each channel on its own, narrower by 1 x 1; added to what came in where the shapes agree."""

    def __init__(self, before: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = before * expansion
        self.expand = nn.Conv2d(before, inside, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(inside, inside, kernel, stride, groups=inside)
        self.project = nn.Conv2d(inside, width, 1)
        self.adds = stride == 1 and before == width

    def forward(self, x: Tensor) -> Tensor:
        inside = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(inside)))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """Images -> features at five scales; frozen, the same in training and in use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        before = STEM
        for count, width, kernel, stride, expansion in STAGES:
            blocks = [InvertedResidual(before, width, kernel, stride, expansion)]
            blocks += [InvertedResidual(width, width, kernel, 1, expansion) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            before = width
        self.requires_grad_(False)

    def forward(self, images: Tensor, scales: int = len(SCALES)) -> list[Tensor]:
        """Return the first so many features of images (N, 3, H, W), or grey (N, 1, H, W), in [-1, 1], of any size.

        Returns:
            (N, CHANNELS[i], H / 2^(i+1), W / 2^(i+1)), sides rounded up.
        """
        x = F.relu6(self.stem(images.expand(-1, 3, -1, -1)))
        features = []
        for number, stage in enumerate(self.stages[: SCALES[scales - 1] + 1]):
            x = stage(x)
            if number in SCALES:
                features.append(x)
        return features


@cache
def efficientnet_lite0(device: torch.device) -> EfficientNetLite0:
    """Return the network that comes with the package, in float32, read once for a device.

    Raises:
        CheckpointError: the package lacks its file, or the file is another.
    """
    path = shipped_weights(NAME)
    if path is None or digest_of(path) != SHA256:
        wrong = "lacks its file" if path is None else "has another file than its own as"
        raise CheckpointError(f"the package {wrong} weights/{NAME}.safetensors: install gtool again")
    with torch.random.fork_rng(devices=[]):
        network = EfficientNetLite0()
    restore(network, read_safetensors(path), path)  # fp16 in the file
    return network.to(device).to(memory_format=torch.channels_last).eval()
