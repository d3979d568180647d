"""What needs a GPU, on the simulated one: a process for each test, as it changes torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers.verbs import RECIPES


def scenarios(*names: str) -> Any:
    """Run scenarios in a process of their own; returns what each found."""
    command = [sys.executable, "-m", "tests.simulated_cuda.scenarios", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    failed = [f"{name}: {result['error']}" for name, result in found.items() if "error" in result]
    assert not failed, failed[0]
    return found


def test_a_step_of_every_family_keeps_a_gpu_busy():
    """CPU and GPU tensors never meet, or the device would have refused; the host only sends pictures and codes.

    What adds in an order of its own has been asked for another kernel, or is not used.
    """
    found = scenarios("tiny_steps")["tiny_steps"]
    for name, step in found.items():
        assert step["finite"], name
        assert step["unordered"] == {}, name
        if name != "paint-transformer":  # whose strokes are matched on the CPU
            assert step["waits"] == {}, name
    sent = {name: sum(step["copies"].values()) for name, step in found.items()}
    assert sent["gansformer"] == sent["vqgan"] == 1
    assert sent["prior"] == 3
    assert sent["transgan"] <= 17  # of two critics; three operations of augmentation for each kind of image
    # Second derivatives are of all elements at once, and of the low-pass not channel by channel.
    assert found["transgan"]["kernels"] < 3500
    assert found["gansformer"]["convolutions"] < 220


def test_paintings_of_any_size_and_a_gpu_by_its_number():
    found = scenarios("paintings", "devices")
    painted = found["paintings"]
    assert all(painted[method]["strokes"] > 8 for method in ("predictor", "greedy", "random"))
    # Of three levels, and as many passes over their strokes, the host waits a few times each and for no single layer.
    assert all(sum(painted[method]["waits"].values()) < 60 for method in ("predictor", "greedy", "random"))
    assert painted["video"]["new strokes"] > 0
    assert painted["4096 px"] == {"seen": [3, 32, 32], "strokes": 6}  # within the shared memory of a block
    devices = found["devices"]
    assert (devices["compute"], devices["current"], devices["moved"]) == ("cuda:1", ["cuda:1"], [])
    assert "3 processes on a machine with 2 GPUs" in devices["refused"]


@pytest.mark.parametrize(
    "family",
    ["vqgan", *(pytest.param(family, marks=pytest.mark.slow) for family in RECIPES if family != "vqgan")],
)
def test_every_verb_works_from_the_command_line(family):
    assert scenarios(f"verbs:{family}")[f"verbs:{family}"]["failed"] == {}


HEAVY = ("transgan/celeba-256", "vqgan/folder", "prior/ffhq")
OTHERS = tuple(
    f"{family}/{name}"
    for family, names in {
        "transgan": ("cifar10", "cifar10-v1", "stl10", "celeba-64", "celeba-128", "church-256", "folder"),
        "gansformer": ("ffhq", "clevr", "cityscapes", "bedrooms", "folder"),
        "vqgan": ("imagenet",),
        "prior": ("folder", "imagenet", "image-gpt"),
        "paint-transformer": ("original", "default"),
    }.items()
    for name in names
)


@pytest.mark.parametrize(
    "recipes", [HEAVY, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["heavy", "others"]
)
def test_recipes_for_gpus_fit_into_24_gb(recipes):
    for recipe, step in scenarios(*recipes).items():
        assert step["gib"] < 22, recipe
        assert step["kernels"] < 10_000, recipe
        assert 3 * step["idle"] <= step["kernels"], recipe  # copies, casts and fills beside what computes
        if step["stated_gib"]:  # by --dry-run
            assert step["stated_gib"] == pytest.approx(step["gib"], rel=0.15), recipe


def test_resampling_by_matrices_is_what_the_library_does():
    import torch
    import torch.nn.functional as F

    from gtool.nn.resample import axis_weights

    image = torch.rand(2, 3, 50, 31, generator=torch.Generator().manual_seed(0))
    for mode, size, antialias in (("bilinear", (7, 40), True), ("bicubic", (100, 62), False)):
        rows, columns = (
            axis_weights(before, after, mode, antialias, torch.device("cpu"))
            for before, after in zip(image.shape[2:], size, strict=True)
        )
        wanted = F.interpolate(image, size, mode=mode, antialias=antialias, align_corners=False)
        torch.testing.assert_close(rows @ image @ columns.T, wanted, atol=1e-6, rtol=0)


@pytest.fixture(autouse=True)
def _from_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
