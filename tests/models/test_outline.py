"""Arithmetic is counted without being done, and networks are looked at without being made."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from gtool.io.weights import save_weights
from gtool.models import registry
from gtool.models.flops import forward_flops
from gtool.models.outline import outline
from gtool.models.trained import open_trained

# Model, config -> GFLOP of one image through each network. Those of the released classes were counted at dispatch
# level; the discriminators of TransGAN compute the last block for the class token alone, and so take 1 to 8 % less.
KNOWN: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "transgan cifar10": ("transgan", {"preset": "cifar10"}, [10.79, 2.50]),
    "transgan stl10": ("transgan", {"preset": "stl10"}, [37.10, 6.33]),
    "transgan church256": ("transgan", {"preset": "church256"}, [202.0, 63.1]),
    "transgan celebahq256": ("transgan", {"preset": "celebahq256"}, [228.1, 56.8]),
    "gansformer": ("gansformer", {}, [115.4, 93.7]),
    "vqgan": ("vqgan", {}, [138.6 + 252.7, 6.29]),
    "palette": ("vqgan", {"kind": "palette", "resolution": 32, "palette_size": 512}, [0.003146]),
    "prior": ("prior", {}, [161.6]),  # every score of its attention, though half of them are masked
    "released predictor": ("paint-transformer", {"architecture": "released"}, [0.689]),
    "dense predictor": ("paint-transformer", {}, [0.2797]),
}
TINY: dict[str, dict[str, Any]] = {
    "transgan": {"preset": "cpu32"},
    "gansformer": {
        "resolution": 16,
        "synthesis": {"channel_max": 16},
        "discriminator": {"channel_max": 16},
    },
    "vqgan": {"resolution": 32, "channels": 32, "multipliers": (1, 2), "attention_sides": (16,)},
    "prior": {
        "resolution": 64,
        "tokenizer": {"resolution": 64, "channels": 32, "multipliers": (1, 2), "attention_sides": (32,)},
        "prior": {"layers": 2, "width": 32, "heads": 2},
    },
    "paint-transformer": {"width": 48, "depth": 1},
}


def outlines(model: str, config: dict[str, Any]) -> list[Any]:
    with outline():
        built = registry.network_module(model).build(registry.config_class(model).model_validate(config))
    return list(built)


@pytest.mark.parametrize("name", KNOWN)
def test_the_arithmetic_of_the_papers_networks_is_known(name):
    model, config, expected = KNOWN[name]
    counted = [forward_flops(network.to("meta")) for network in outlines(model, config)]
    assert [1e-9 * count for count in counted] == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("model", TINY)
def test_an_outline_has_the_tensors_and_the_arithmetic_of_the_network(model):
    networks = registry.network_module(model).build(registry.config_class(model).model_validate(TINY[model]))
    for network, empty in zip(networks, outlines(model, TINY[model]), strict=True):
        shapes = {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}
        assert {name: (value.shape, value.dtype) for name, value in empty.state_dict().items()} == shapes
        assert {value.device.type for value in empty.state_dict().values()} <= {"meta"}
        # On a CPU the decoder multiplies less (gtool/models/vqgan/network.py).
        assert forward_flops(network) == pytest.approx(forward_flops(empty.to("meta")), rel=0.3)


def test_counting_leaves_a_network_as_it_is():
    (discriminator,) = registry.network_module("vqgan").build(
        registry.config_class("vqgan").model_validate(TINY["vqgan"])
    )[1:]
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    forward_flops(discriminator.train())
    assert all(module.training for module in discriminator.modules())
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("padding", [0, 1, 12])
def test_a_network_from_a_file_repeats_the_bits_of_the_saved_one(model, padding):
    """Wherever the tensors lie in the file: products of the library depend on the alignment of memory."""
    config = registry.config_class(model).model_validate(TINY[model])
    network = registry.network(model)(config).eval()
    path = Path("saved.safetensors")
    save_weights(path, network.state_dict(), {"model": model, "config": config.model_dump(mode="json")})
    saved = path.read_bytes()
    end = 8 + struct.unpack("<Q", saved[:8])[0]
    path.write_bytes(struct.pack("<Q", end - 8 + padding) + saved[8:end] + b" " * padding + saved[end:])
    loaded = open_trained(path).network().eval()
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.parameters())
    with torch.no_grad():
        ours, theirs = (made(*network.example_inputs()) for made in (loaded, network))
    pairs = [(ours, theirs)] if isinstance(ours, torch.Tensor) else zip(ours, theirs, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("model", registry.MODELS)
def test_rows_name_what_is_there(model):
    row = registry.find_model(model)
    assert callable(registry.network(model))
    assert callable(registry.exports(model))
    assert callable(registry.trainer(model))
    assert hasattr(registry.released_module(model), "rename_released")
    assert len(row.networks) >= len(outlines(model, TINY[model]))
