"""`gtool export`: files that other programs run make the images of the run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .commands import folder_pixels, gtool, sample


def images(path, z):
    """Run an exported generator."""
    if path.endswith(".pt2"):
        return torch.export.load(path).module()(z).detach().numpy()
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["images"], {"z": z.numpy()})[0]


def test_onnx_and_pt2_make_the_same_images(run_of, frozen):
    z = torch.linspace(-1.5, 1.5, 3 * 8).reshape(3, 8)
    for path in ("tiny.onnx", "tiny.pt2"):
        assert gtool("--quiet", "export", run_of("transgan"), "-o", path) == 0
    of_torch = images("tiny.pt2", z)
    assert of_torch.shape == (3, 3, 16, 16)
    assert np.abs(images("tiny.onnx", z) - of_torch).max() < 1e-4
    shown = ((of_torch + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    frozen.pixels("export/transgan", shown.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("model", ["transgan", "gansformer", "prior"])
def test_weights_to_share_make_the_pixels_of_the_run(model, run_of):
    run = run_of(model)
    assert gtool("--quiet", "export", run, "-o", "shared.safetensors") == 0
    assert sample(run, "--num", 2, "-o", "run/") == 0
    assert sample("shared.safetensors", "--num", 2, "-o", "shared/") == 0
    assert (folder_pixels("run") == folder_pixels("shared")).all()


@pytest.mark.parametrize("model", ["vqgan", "paint-transformer"])
def test_networks_of_several_parts_are_exported(model, run_of, tmp_path):
    assert gtool("--quiet", "export", run_of(model), "-o", "tiny.pt2") == 0
    assert len(list(tmp_path.glob("*.pt2"))) == (2 if model == "vqgan" else 1)
