"""Whether images of a conditional GAN show the class that was asked for: named by a classifier of real photographs.

    GTOOL_DATA=data python -m tests.benchmarks.class_agreement train [--epochs 6] [--out cifar10-classifier.safetensors]
    GTOOL_DATA=data python -m tests.benchmarks.class_agreement score WEIGHTS... [--num 2000]

The classifier is a residual network of 0.6 M parameters that learns from the training split of CIFAR-10 alone, its
images moved and mirrored. `score` says how often it names the class of real images of the test split, which nobody has
trained on, and the class that was asked of the generator; the bar is half as often.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.data.open import open_dataset
from gtool.data.pixel_cache import ImageArrays, load_images
from gtool.io.weights import load_weights, restore, save_weights
from gtool.models.generate import load_model

DATASET, RESOLUTION, CLASSES = "cifar10", 32, 10
BATCH, RATE, SHIFT = 128, 4e-3, 4
WIDTHS = (32, 64, 128)


class Residual(nn.Module):
    """Two convolutions, the first to half the side, and a way around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(inputs, outputs, 1, 2)
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.layers(x))


class Classifier(nn.Module):
    """Images (N, 3, 32, 32) in [-1, 1] -> scores (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        first, *rest = WIDTHS
        self.first = nn.Sequential(nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        self.blocks = nn.Sequential(
            *(Residual(a, b) for a, b in zip((first, *rest), (*rest, rest[-1]), strict=True))
        )
        self.scores = nn.Linear(rest[-1], CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.first(images.contiguous(memory_format=torch.channels_last)))
        return self.scores(x.mean(dim=(2, 3)))


def labelled(split: str) -> ImageArrays:
    """Return a split of the data set with its labels."""
    return load_images(open_dataset(DATASET, split=split), RESOLUTION, condition="class")


def pixels(images: np.ndarray | Tensor) -> Tensor:
    return torch.as_tensor(np.array(images)).float() / 127.5 - 1


def moved(images: Tensor) -> Tensor:
    """Mirror half of the images, and move all by up to SHIFT pixels, mirrored at the border."""
    mirrored = torch.rand(len(images)) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    padded, (x, y) = (
        F.pad(images, [SHIFT] * 4, mode="reflect"),
        torch.randint(2 * SHIFT + 1, (2, len(images))),
    )
    side = torch.arange(RESOLUTION)
    rows, columns = y[:, None, None] + side[:, None], x[:, None, None] + side
    return padded[torch.arange(len(images))[:, None, None], :, rows, columns].movedim(-1, 1)


def train(epochs: int, out: Path) -> None:
    """Train from seed 0 and print the accuracy on the test split."""
    torch.manual_seed(0)
    data, start = labelled("train"), time.monotonic()
    network = Classifier().to(memory_format=torch.channels_last)
    print(sum(p.numel() for p in network.parameters()), "parameters")
    steps, labels = epochs * (len(data) // BATCH), torch.from_numpy(np.array(data.labels))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        places = torch.randint(len(data), (BATCH,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = network(moved(pixels(data.images[places.numpy()])))
        loss = F.cross_entropy(scores.float(), labels[places])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(
                f"{time.monotonic() - start:6.0f} s  step {step + 1} of {steps}  loss {loss:.3f}", flush=True
            )
    save_weights(out, network.state_dict(), {"model": "cifar10-classifier", "epochs": epochs})
    show("real test images", network.eval(), *held_out_images())


def held_out_images() -> tuple[np.ndarray, Tensor, tuple[str, ...]]:
    data = labelled("test")
    return np.array(data.images), torch.from_numpy(np.array(data.labels)), data.label_names or ()


@torch.no_grad()
def show(
    name: str, network: Classifier, images: np.ndarray, asked: Tensor, classes: tuple[str, ...]
) -> float:
    """Print how often the class that was asked for is named, of all images and of each class; return the first."""
    found = torch.cat(
        [network(pixels(part)).argmax(1) for part in np.array_split(images, len(images) // 100)]
    )
    is_right = found == asked
    each = ", ".join(
        f"{one} {100 * is_right[asked == i].float().mean():.0f}" for i, one in enumerate(classes)
    )
    share = float(is_right.float().mean())
    print(f"{name}: {100 * share:.1f} % of {len(images):,} ({each})", flush=True)
    return share


def score(paths: list[str], num: int, weights: Path) -> None:
    """Print the shares of real and of generated images, and how many times as often real ones are named."""
    network = Classifier().eval()
    restore(network, load_weights(weights).tensors, weights)
    images, labels, classes = held_out_images()
    real = show("real test images", network, images, labels, classes)
    for path in paths:
        model = load_model(path)
        numbers = torch.arange(num)
        images = torch.cat(list(model.batches(numbers))).numpy()
        share = show(str(model.path), network, images, numbers % CLASSES, classes)
        print(f"{share / real:.2f} of the share of real images; the bar is 0.5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["train", "score"])
    parser.add_argument("models", nargs="*", help="weights, runs or names to score")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--out", "--weights", type=Path, default=Path("cifar10-classifier.safetensors"))
    arguments = parser.parse_args()
    if arguments.what == "train":
        train(arguments.epochs, arguments.out)
    else:
        score(arguments.models, arguments.num, arguments.out)


if __name__ == "__main__":
    main()
