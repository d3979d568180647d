"""Files of the released GANsformer: networks pickled with their source, read as data and rebuilt as ours."""

from __future__ import annotations

import json
import os
import pickletools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gtool.cli import run
from gtool.errors import CheckpointError
from gtool.models.gansformer.released import read_file, rename_released
from gtool.models.generate import load_model
from tests.helpers import released_pickles
from tests.helpers.gansformer_formula import chirp, formula_noise, formula_weights
from tests.helpers.transgan_formula import summary
from tests.io.test_pickles import Call
from tests.models.test_gansformer import GOLDEN

KINDS = (
    "centroid",
    "clevr",
    "simplex_heads",
    "trainable_positions",
    "from_tensorflow",
    "pixel_gates",
    "stylegan2",
)


def released(name: str = "centroid", **changes: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a released generator, and the arguments that it was built with."""
    known = GOLDEN["generators"][name]
    tensors = formula_weights(known["shapes"])
    if "pos_type" in known["settings"]["synthesis_kwargs"]:  # a learned place is there under two names
        tensors |= {k.replace("grid_pos", "pos0"): t for k, t in tensors.items() if k.endswith("grid_pos")}
    settings = json.loads(json.dumps(known["settings"]))
    for key, value in changes.items():
        table, _, entry = key.rpartition("__")
        (settings[table] if table else settings)[entry] = value
    return tensors, settings


def snapshot(name: str = "centroid", **changes: Any) -> dict[str, Any]:
    """Return what the released training writes every few ticks; only `Gs` is meant to be used, and whole."""
    tensors, settings = released(name, **changes)
    weight = {"b4.out.weight": torch.zeros(1)}
    return {
        "dataset_args": {"class_name": "training.dataset.ImageFolderDataset", "resolution": 16},
        "G": released_pickles.network(weight, settings),
        "D": released_pickles.network(weight, {}, "Discriminator"),
        "Gs": released_pickles.network(tensors, settings),
    }


def export(*arguments: str) -> int:
    return run(["export", *arguments])


@pytest.mark.parametrize("name", KINDS)
def test_a_released_file_becomes_weights_that_make_its_images(name, capsys):
    known = GOLDEN["generators"][name]
    released_pickles.write("network-snapshot-000012.pkl", snapshot(name))
    assert export("network-snapshot-000012.pkl", "--from", "gansformer", "-o", "ours.safetensors") == 0
    shown = capsys.readouterr()
    assert shown.out == "ours.safetensors\n"
    assert "read `Gs`: gansformer at 16 px" in shown.err
    model = load_model("ours.safetensors", "cpu", "fp32")
    generator, meta = model.network, model.meta
    assert meta["source"] == "network-snapshot-000012.pkl"
    images = generator(chirp((2, *generator.z_shape), 0), formula_noise(generator.noise_shapes, 2))
    made = summary(images)
    tolerance = 1e-4 * max(map(abs, known["images"]["values"]))
    assert made["values"] == pytest.approx(known["images"]["values"], rel=1e-4, abs=tolerance)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_files_of_every_protocol_are_read(protocol):
    path = released_pickles.write("network.pkl", snapshot(), protocol)
    chosen, config, tensors = read_file(path)
    assert (chosen, config.attention, config.components) == ("Gs", "centroid", 3)
    expected = rename_released(*released())[1]
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_the_averaged_generator_is_taken_first_and_the_trained_one_where_it_is_alone():
    whole = snapshot()
    assert read_file(released_pickles.write("network.pkl", whole))[0] == "Gs"
    alone = whole | {"G": whole["Gs"], "Gs": None}
    assert read_file(released_pickles.write("network.pkl", alone))[0] == "G"


def test_files_of_torch_save_are_read_as_well():
    assert read_file(released_pickles.write_zip("network.pth", snapshot()))[0] == "Gs"
    tensors, _ = released()
    torch.save(tensors, "state.pth")
    chosen, config, _ = read_file(Path("state.pth"))
    assert (chosen, config.attention) == ("the whole file", "centroid")


def test_arguments_in_the_file_decide_what_tensors_do_not_show():
    tensors, settings = released(
        "simplex_heads", synthesis_kwargs__norm="instance", mapping_kwargs__lrmul=0.1
    )
    config, _ = rename_released(tensors, settings)
    assert (config.synthesis.heads, config.synthesis.norm) == (2, "instance")
    assert config.mapping.multiplier == 0.1
    guessed, _ = rename_released(tensors)
    assert (guessed.synthesis.heads, guessed.synthesis.norm, guessed.mapping.multiplier) == (1, "layer", 0.01)


# Refused.

SETTINGS = {
    "classes": {"c_dim": 10},
    "grey": {"img_channels": 1},
    "widths": {"z_dim": 16},
    "hidden width": {"mapping_kwargs__layer_dim": 64},
    "one mapping of all": {"mapping_kwargs__shared": True},
    "gates of components": {"synthesis_kwargs__ltnt_gate": True},
    "gates of the mapping": {"mapping_kwargs__ltnt_gate": True},
    "carried assignments": {"synthesis_kwargs__iterative": True},
    "heads of centroids": {"synthesis_kwargs__num_heads": 2, "mapping_kwargs__num_heads": 2},
    "heads that differ": {"mapping_kwargs__num_heads": 2},
    "positions that differ": {"mapping_kwargs__use_pos": False},
    "no squares": {"synthesis_kwargs__crop_ratio": 0.5},
    "plain stack": {"synthesis_kwargs__architecture": "orig"},
    "directions": {"synthesis_kwargs__pos_directions_num": 4},
    "positions": {"synthesis_kwargs__pos_type": "linear"},
    "activation": {"synthesis_kwargs__act": "relu"},
    "filter": {"synthesis_kwargs__resample_kernel": [1, 2, 1]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_network_that_ours_cannot_be_is_refused_by_the_name_of_the_argument(name):
    changes = SETTINGS[name]
    argument = next(iter(changes)).rpartition("__")[2]
    with pytest.raises(CheckpointError, match=rf"a GANsformer built with {argument} = "):
        rename_released(*released(**changes))


class Network:
    """A network of TensorFlow, as the first release pickles it."""

    def __init__(self) -> None:
        self.state = {"version": 5, "name": "G", "static_kwargs": {}, "build_module_src": "import os"}


Network.__module__ = "dnnlib.tflib.network"


def tensorflow() -> bytes:
    """Three networks in a tuple, written without that module."""
    network = b"cdnnlib.tflib.network\nNetwork\n)\x81}(X\x07\0\0\0versionK\x05ub"
    return b"\x80\x03" + 3 * network + b"\x87."


def endless() -> dict[str, Any]:
    """Modules that hold each other."""
    saved = snapshot()
    saved["Gs"].mapping.add_module("again", saved["Gs"])
    return saved


def branching() -> dict[str, Any]:
    """Modules of which each level holds the next one many times."""
    saved = snapshot()
    module = released_pickles.network({"weight": torch.zeros(1)}, {})
    for _ in range(10):
        above = released_pickles.Persistent("Layer")
        for branch in range(12):
            above.add_module(str(branch), module)
        module = above
    saved["Gs"].add_module("many", module)
    return saved


def empty_branching() -> dict[str, Any]:
    """The same without tensors: 12 to the power of 10 modules, and nothing in them."""
    saved = snapshot()
    module = torch.nn.Dropout(0.1)
    for _ in range(10):
        module = torch.nn.ModuleDict({str(branch): module for branch in range(12)})
    saved["Gs"].add_module("many", module)
    return saved


def doubled() -> list[Any]:
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    return value


def with_argument(value: Any) -> dict[str, Any]:
    tensors, settings = released()
    return {"Gs": released_pickles.network(tensors, settings | {"c_dim": value})}


def both_doubled() -> dict[str, Any]:
    """Two values that are compared with each other."""
    tensors, settings = released()
    return {"Gs": released_pickles.network(tensors, settings | {"z_dim": doubled(), "w_dim": doubled()})}


def odd_name() -> dict[str, Any]:
    saved = snapshot()
    saved["Gs"]._modules["a\nb" * 1000] = saved["G"]
    return saved


def deep_argument() -> bytes:
    """A value 100,000 lists deep, in the place of an argument."""
    whole = pickle_of(with_argument("PLACE"))
    place = b"\x8c\x05PLACE"
    return whole.replace(place, b"]" * 100_000 + b"a" * 99_999)


def pickle_of(content: Any) -> bytes:
    """Return a pickle without frames, so that something can be put into it."""
    whole = released_pickles.write("network.pkl", content).read_bytes()
    kept, previous = [], None
    for opcode, _, position in pickletools.genops(whole):
        if previous is not None and previous[0] != "FRAME":
            kept.append(whole[previous[1] : position])
        previous = opcode.name, position
    return b"".join(kept) + b"."


def without(name: str) -> dict[str, Any]:
    tensors, settings = released()
    del tensors[name]
    return {"Gs": released_pickles.network(tensors, settings)}


def changed(name: str, tensor: Tensor) -> dict[str, Any]:
    tensors, settings = released()
    return {"Gs": released_pickles.network(tensors | {name: tensor}, settings)}


def with_table(value: Any) -> dict[str, Any]:
    tensors, settings = released()
    return {"Gs": released_pickles.network(tensors, settings | {"mapping_kwargs": value})}


QUERY = "synthesis.b4.conv1.transformer.to_queries.weight"
DAMAGES: dict[str, tuple[Any, str]] = {
    "code for a network": (lambda: {"Gs": Call(os.mkdir, "executed")}, "holds no network"),
    "code in a network": (lambda: changed_attribute(Call(os.mkdir, "executed")), "holds no network of the"),
    "text": (lambda: b"no networks", "not a readable pickle"),
    "TensorFlow": (tensorflow, "networks of TensorFlow; convert them with loader.py"),
    "a list": (lambda: [1, 2], "holds no network; looked for Gs, G_ema, G"),
    "numbers": (lambda: {"Gs": 3, "G": "text"}, "holds no network"),
    "another class": (lambda: {"Gs": torch.nn.Linear(2, 2)}, "no GANsformer generator"),
    "endless": (endless, "its modules have no end"),
    "branching": (branching, "its modules have no end"),
    "empty branching": (empty_branching, "its modules have no end"),
    "odd name": (odd_name, "names in it are no names"),
    "doubled argument": (lambda: with_argument(doubled()), "built with c_dim = 'list'"),
    "doubled arguments": (both_doubled, "built with z_dim = 'list'"),
    "deep argument": (deep_argument, "built with c_dim = 'list'"),
    "tensor for an argument": (lambda: with_argument(torch.zeros(3)), "built with c_dim = 'Tensor'"),
    "digits": (lambda: changed("synthesis.b0.conv1.noise", torch.zeros(2)), "no GANsformer generator"),
    "discriminator": (lambda: {"Gs": snapshot()["D"]}, "no GANsformer generator"),
    "no constant": (lambda: without("synthesis.b8.conv0.weight"), "1 tensors missing"),
    "no centroids": (lambda: without("synthesis.b8.conv1.transformer.centroids"), "1 tensors missing"),
    "no query": (lambda: without(QUERY), "tensors missing"),
    "flat weight": (lambda: changed("synthesis.b4.conv1.weight", torch.zeros(())), "no GANsformer generator"),
    "flat centroids": (
        lambda: changed("synthesis.b4.conv1.transformer.centroids", torch.zeros(2)),
        "attention.centroids` is",
    ),
    "other shape": (lambda: changed("synthesis.b8.conv1.weight", torch.zeros(2, 2)), "this model has"),
    "foreign tensor": (
        lambda: changed("synthesis.b8.conv9.weight", torch.zeros(2)),
        "`synthesis.b8.conv9.weight`",
    ),
    "foreign part": (
        lambda: changed("synthesis.b8.conv1.transformer.gate.weight", torch.zeros(2)),
        "transformer.gate.weight` is unknown",
    ),
    "not finite": (
        lambda: changed("synthesis.b16.torgb.biasAct.bias", torch.full((3,), torch.nan)),
        "not finite",
    ),
    "table of text": (lambda: with_table("text"), "`mapping_kwargs` is no table"),
    "vast": (lambda: with_resolution(2**20), "cannot be built"),
}


def changed_attribute(value: Any) -> dict[str, Any]:
    saved = snapshot()
    saved["Gs"].synthesis._modules["b4"] = value
    return saved


def with_resolution(side: int) -> dict[str, Any]:
    tensors, settings = released()
    renamed = {
        name.replace("synthesis.b16.", f"synthesis.b{side}."): tensor for name, tensor in tensors.items()
    }
    return {"Gs": released_pickles.network(renamed, settings)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_one_line_and_executes_nothing(damage, capsys):
    make, message = DAMAGES[damage]
    content = make()
    if isinstance(content, bytes):
        Path("network.pkl").write_bytes(content)
    else:
        released_pickles.write("network.pkl", content)
    assert export("network.pkl", "--from", "gansformer") == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("error: ")
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""
    assert os.listdir() == ["network.pkl"]


def test_without_importing_the_file_is_not_opened(capsys):
    released_pickles.write("network.pkl", snapshot())
    assert run(["sample", "network.pkl"]) == 1
    assert "convert it once with `gtool export network.pkl --from MODEL`" in capsys.readouterr().err


def test_only_the_generator_is_built_and_only_after_it_fits(monkeypatch):
    from gtool.models.gansformer import network as gansformer

    built = []
    generator = gansformer.Generator

    def build(config: Any) -> Any:
        network = generator(config)
        built.append(next(network.parameters()).device.type)
        return network

    monkeypatch.setattr(gansformer, "Generator", build)
    monkeypatch.setattr(gansformer, "Discriminator", None)
    released_pickles.write("network.pkl", snapshot())
    assert export("network.pkl", "--from", "gansformer", "-o", "ours.safetensors") == 0
    assert built == ["meta"]
    released_pickles.write("network.pkl", without(QUERY))
    built.clear()
    assert export("network.pkl", "--from", "gansformer", "-o", "others.safetensors") == 1
    assert built in ([], ["meta"])
