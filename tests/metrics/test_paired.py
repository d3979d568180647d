"""PSNR, SSIM, L1 and LPIPS of pairs."""

from __future__ import annotations

import pytest
import torch

from gtool.errors import DataError, NetworkError
from gtool.losses.perceptual import LPIPS
from gtool.metrics import paired
from gtool.metrics.features.weights import VGG16
from gtool.metrics.paired import pixel_scores
from tests.helpers import pictures, vgg16_standin


def ssim(made, real):
    return pixel_scores(made, real)["ssim"]


def test_psnr_is_that_of_the_mean_squared_difference():
    real = torch.full((3, 3, 16, 16), 100, dtype=torch.uint8)
    made = torch.stack([real[0] + 1, real[1] + 10, real[2]])
    found = pixel_scores(made, real)
    # 20 log10(255 / 1), (255 / 10); of equal pictures the squared error is counted as 0.001
    assert found["psnr"].tolist() == pytest.approx([48.1308, 28.1308, 78.1308], abs=1e-3)
    assert found["l1"].tolist() == [1, 10, 0]


def test_ssim_of_equal_pictures_is_one_and_of_their_negative_below_zero():
    real = torch.from_numpy(pictures.draw(4, seed=1))
    assert ssim(real, real).tolist() == pytest.approx([1] * 4)
    assert (ssim(255 - real, real) < 0.1).all()
    worse = [float(ssim(torch.from_numpy(pictures.noisy(real.numpy(), d)), real).mean()) for d in (5, 20, 60)]
    assert 1 > worse[0] > worse[1] > worse[2] > 0


def test_ssim_of_constant_pictures_is_that_of_their_means():
    first, second = torch.full((1, 3, 16, 16), 50), torch.full((1, 3, 16, 16), 100)
    known = (2 * 50 * 100 + 6.5025) / (50**2 + 100**2 + 6.5025)  # C1 = (0.01 * 255)^2
    assert float(ssim(second.byte(), first.byte())) == pytest.approx(known, abs=1e-6)


def test_scores_of_a_batch_are_those_of_its_images():
    real, made = (torch.from_numpy(pictures.draw(3, seed=seed)) for seed in (1, 2))
    together = pixel_scores(made, real)
    for place in range(3):
        alone = pixel_scores(made[place : place + 1], real[place : place + 1])
        assert {name: float(v[0]) for name, v in alone.items()} == pytest.approx(
            {name: float(v[place]) for name, v in together.items()}, rel=1e-12
        )


def test_images_smaller_than_the_window_are_refused():
    small = torch.zeros(1, 3, 10, 32, dtype=torch.uint8)
    with pytest.raises(DataError, match="ssim needs images of 11 pixels a side; got 32 x 10"):
        pixel_scores(small, small)


def test_lpips_takes_its_heads_from_torchmetrics_and_vgg16_from_torchs_cache(tmp_path, monkeypatch):
    paired.load_lpips.cache_clear()
    with pytest.raises(NetworkError, match="LPIPS needs the VGG16 weights, vgg16-397923af.pth: not in"):
        paired.lpips(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    monkeypatch.setenv(VGG16.variable, str(vgg16_standin.make(tmp_path / "vgg16.pth")))
    first, second = (torch.from_numpy(pictures.draw(2, seed=seed)) for seed in (1, 2))
    found = paired.lpips(first, second)["lpips"]
    assert found.shape == (2,)
    assert (found > 0).all()
    assert paired.lpips(first, first)["lpips"].tolist() == [0, 0]
    assert isinstance(paired.load_lpips(), LPIPS)
    paired.load_lpips.cache_clear()
