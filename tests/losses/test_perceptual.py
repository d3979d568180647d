"""EfficientNet-Lite0, which comes with the package, and the distance of images in its features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gtool.errors import CheckpointError
from gtool.io import run_folder
from gtool.losses.efficientnet import CHANNELS, efficientnet_lite0
from gtool.losses.perceptual import perceptual_distance
from tests.helpers.vqgans import pictures

CPU = torch.device("cpu")
# Of timm's tf_efficientnet_lite0 with the original fp32 weights: the last place's first channels, and the deviation.
OF_TIMM = [
    ([-2.966, 14.644, 9.301, -4.159], 8.005),
    ([7.689, 0.159, 0.536, -1.705], 11.659),
    ([14.735, -10.088, 4.735, -25.426], 10.591),
    ([2.546, 4.21, 3.391, 7.132], 6.376),
    ([3.364, -1.985, 1.46, -9.443], 3.791),
]


def waves() -> torch.Tensor:
    """An image (1, 3, 64, 61), of an odd width."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(61.0), indexing="ij")
    return torch.stack([((x * a + y * b) / 20).sin() for a, b in ((1, 2), (3, -1), (0, 1))])[None]


def test_features_are_those_of_timm():
    features = efficientnet_lite0(CPU)(waves())
    assert [x.shape[1] for x in features] == list(CHANNELS)
    for found, (corner, deviation) in zip(features, OF_TIMM, strict=True):
        assert found.std().item() == pytest.approx(deviation, rel=2e-3)
        assert found[0, :4, -1, -1].tolist() == pytest.approx(corner, abs=0.03 * deviation)


def test_distances_order_changes_as_people_do():
    images = pictures(4, 32)
    moved = images.roll(1, 3)
    blurred = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    distances = [
        perceptual_distance(x, images) for x in (images, 0.95 * images, moved, blurred, images.flip(0))
    ]
    assert (distances[0] == 0).all()
    means = [x.mean().item() for x in distances]
    assert means == sorted(means)
    assert means[-1] < 4


def test_a_grey_image_is_three_equal_channels_and_the_gradient_reaches_the_image():
    grey, other = waves()[:, :1].requires_grad_(), waves()[:, 1:2]
    distance = perceptual_distance(grey, other)
    assert torch.equal(distance, perceptual_distance(grey.expand(-1, 3, -1, -1), other))
    distance.sum().backward()
    assert grey.grad is not None
    assert grey.grad.isfinite().all()
    assert grey.grad.abs().sum() > 0


def test_a_package_without_its_file_or_with_another_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(run_folder, "SHIPPED_FOLDER", Path("nowhere"))
    with pytest.raises(CheckpointError, match="install gtool again"):
        efficientnet_lite0.__wrapped__(CPU)
    monkeypatch.setattr(run_folder, "SHIPPED_FOLDER", tmp_path)
    (tmp_path / "efficientnet-lite0.safetensors").write_bytes(b"other bytes")
    with pytest.raises(CheckpointError, match="another file"):
        efficientnet_lite0.__wrapped__(CPU)
