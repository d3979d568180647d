"""Shared fixtures: everything is made by the tests themselves, in temporary folders, offline."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hub_server import HubServer, hub_server

# Before any library reads them: tests never reach for the network, and two workers share two cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own working folder and cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GTOOL_DATA", raising=False)


@pytest.fixture(scope="session")
def _untrained_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained tiny generator, made once."""
    import torch

    from gtool.io.weights import save_weights
    from gtool.models import registry
    from gtool.models.generate import weights_meta
    from tests.helpers.tiny import tiny_recipe

    recipe = tiny_recipe()
    config = registry.config_class("transgan").model_validate(recipe.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = registry.network_module("transgan").Generator(config)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, generator.state_dict(), weights_meta(recipe, config, 12_000))
    return path


@pytest.fixture(scope="session")
def inception_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(state dict, TorchScript) of a network of Inception's shape with the same random weights, made once."""
    from tests.helpers import inception_standin

    return inception_standin.make(tmp_path_factory.mktemp("inception"))


@pytest.fixture
def tiny_weights(_untrained_weights: Path, tmp_path: Path) -> Path:
    """A weights file that stands alone, `tiny.safetensors` in the test's own folder."""
    return Path(shutil.copy(_untrained_weights, tmp_path / "tiny.safetensors"))


@pytest.fixture
def tiny_run(_untrained_weights: Path, tmp_path: Path) -> Path:
    """A run folder with one weights file, the newest of ./runs."""
    from gtool.config.recipe import to_toml
    from tests.helpers.tiny import tiny_recipe

    folder = tmp_path / "runs" / "transgan-scenes-000"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(to_toml(tiny_recipe()), encoding="utf-8")
    shutil.copy(_untrained_weights, folder / "weights-000012.safetensors")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server that the libraries take for the Hugging Face hub, with their caches in the test's own folder.

    The libraries read the environment once, when they are imported.
    """
    import datasets
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        for place, name, value in (
            (constants, "ENDPOINT", server.address),
            (
                constants,
                "HUGGINGFACE_CO_URL_TEMPLATE",
                server.address + "/{repo_id}/resolve/{revision}/{filename}",
            ),
            (constants, "HF_HUB_OFFLINE", False),
            (constants, "HF_HUB_DISABLE_XET", True),
            (constants, "HF_HUB_CACHE", str(tmp_path / "hub")),
            (constants, "HF_TOKEN_PATH", str(tmp_path / "token")),
            (datasets.config, "HF_ENDPOINT", server.address),
            (datasets.config, "HF_HUB_OFFLINE", False),
            (datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets"),
        ):
            monkeypatch.setattr(place, name, value)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # between tries
        yield server
