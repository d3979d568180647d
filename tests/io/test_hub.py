"""Files of the hub, from a server on this machine that answers as the hub does."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from gtool import console
from gtool.cli import run
from gtool.config.recipe import to_toml
from gtool.data.open import open_dataset
from gtool.errors import NetworkError
from gtool.io import hub as client
from tests.helpers.hub_server import Fault
from tests.helpers.tiny import tiny_recipe

MODEL = "me/my-model"
SAMPLE = ["sample", MODEL, "--num", "1", "--device", "cpu"]


@pytest.fixture
def model(hub, tiny_weights):
    """The hub with one repository of weights under two names."""
    content = tiny_weights.read_bytes()
    files = {"model.safetensors": content, "weights-000200.safetensors": content, "old/net.pth": b"\x80\x02"}
    hub.repositories[f"model/{MODEL}"] = files
    return hub


def said(capsys):
    """Return what a command that failed has said: notices and progress, and the one line of its error."""
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1]


def test_weights_come_by_any_name(model, capsys):
    assert run(SAMPLE) == 0
    assert run(["sample", f"{MODEL}:weights-000200.safetensors", "--num", "1", "--device", "cpu"]) == 0
    assert model.gets() == ["model.safetensors"]  # the other is the same bytes
    assert f"HEAD /{MODEL}/resolve/main/weights-000200.safetensors" in model.asked
    capsys.readouterr()
    assert run(["sample", f"{MODEL}:old/net.pth"]) == 1
    assert "a torch pickle; convert it once with `gtool export" in said(capsys)


def test_what_is_pushed_anew_is_fetched_anew(model):
    path = client.download(MODEL, "model.safetensors")
    assert client.download(MODEL, "model.safetensors") == path
    assert model.gets() == ["model.safetensors"]
    model.repositories[f"model/{MODEL}"]["model.safetensors"] = b"newer"
    model.commit = "d" * 40
    assert client.download(MODEL, "model.safetensors").read_bytes() == b"newer"


def test_out_of_reach_the_copy_in_the_cache_is_used(model, monkeypatch):
    assert run(SAMPLE) == 0
    monkeypatch.setattr(client, "is_reachable", lambda: False)
    assert run(SAMPLE) == 0


FAILURES = {
    "it dies": (
        Fault("GET .*resolve", sends=1 << 16, piece=1 << 14),
        "the download broke off: .*; the same command again",
    ),
    "500": (Fault("resolve", 500), "the download broke off: .*500"),
    "429": (
        Fault("resolve", 429, headers={"Retry-After": "7"}),
        "limits how often it is asked .*wait 7 s, then the same",
    ),
    "401": (Fault("resolve", 401, "RepoNotFound"), "or a private one, which takes `hf auth login`"),
    "a bad token": (
        Fault("resolve", 401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}),
        "the hub does not know your token",
    ),
    "gated": (Fault("resolve", 403, "GatedRepo"), "its owner grants access on the hub; ask for it there"),
    "403": (Fault("resolve", 403), "the hub does not let you read it"),
    "no repository": (Fault("resolve", 404, "RepoNotFound"), "none of this name on the hub"),
    "no file": (
        Fault("resolve", 404, "EntryNotFound"),
        "holds no model.safetensors; name one of its files: .*, me/my-model:weights-000200.safetensors",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_line_and_the_same_command_again_succeeds(name, model, capsys):
    fault, expected = FAILURES[name]
    model.faults.append(fault)
    assert run(SAMPLE) == 1
    assert re.search(expected, said(capsys))
    model.faults.clear()
    assert run(SAMPLE) == 0


def test_a_slow_download_says_how_far_it_is(model, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(client, "WATCH_SECONDS", 0.02)
    blobs = tmp_path / "hub/models--me--my-model/blobs"
    blobs.mkdir(parents=True)
    (blobs / "killed.incomplete").write_bytes(b"of another process")
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.05)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 12)  # written in such parts
    model.faults.append(Fault("GET .*resolve", pause=0.05, piece=1 << 14))
    assert run(SAMPLE) == 0
    lines = capsys.readouterr().err.splitlines()
    assert (
        lines[0] == f"fetching {MODEL}; should that break off, the same command goes on with what is missing"
    )
    shown = [line for line in lines[1:] if line.startswith(f"fetching {MODEL}  ")]
    assert len(shown) >= 2
    assert "% 0." in shown[0]
    assert shown[0].endswith(" MB")
    model.faults[:] = [Fault("HEAD .*resolve", pause=0.2)]
    assert run(SAMPLE) == 0  # what is there is not fetched, whatever others have left
    assert "downloading" not in capsys.readouterr().err


def test_a_data_set_whose_download_breaks_off_is_not_blamed(hub, monkeypatch):
    def load(*_):
        try:
            raise ConnectionError("peer closed connection")
        except ConnectionError as bad:
            raise RuntimeError("An error occurred while generating the dataset") from bad

    monkeypatch.setattr("gtool.data.read_tables._require_repository", lambda _: None)
    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(NetworkError) as caught:
        open_dataset("owner/name")
    again = "the same command again goes on with what is missing"
    assert str(caught.value) == f"owner/name: the download broke off: peer closed connection; {again}"


# `gtool train transgan --dataset cifar10` without $GTOOL_DATA, through `datasets` itself.

CARD = b"""---
configs:
- config_name: plain_text
  default: true
  data_files:
  - {split: train, path: plain_text/train-*}
  - {split: test, path: plain_text/test-*}
---
"""
KINDS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN = [
    "train",
    "transgan",
    "--dataset",
    "cifar10",
    "--recipe",
    "tiny.toml",
    "--device",
    "cpu",
    "--out",
    "run",
]
TRAIN += ["--kimg", "0.016", "--set", "train.metrics=[]"]


@pytest.fixture
def cifar10(hub):
    """The hub with a few pictures in the schema of uoft-cs/cifar10, and a recipe of tiny networks."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature
    from PIL import Image

    features = Features({"img": ImageFeature(), "label": ClassLabel(names=KINDS)})
    files = {"README.md": CARD}
    for split, count in (("train", 40), ("test", 20)):
        pictures = [Image.new("RGB", (32, 32), (6 * k, 128, 255 - 6 * k)) for k in range(count)]
        rows = {"img": pictures, "label": [k % 10 for k in range(count)]}
        table = io.BytesIO()
        Dataset.from_dict(rows, features=features).to_parquet(table)
        files[f"plain_text/{split}-00000-of-00001.parquet"] = table.getvalue()
    hub.repositories["dataset/uoft-cs/cifar10"] = files
    Path("tiny.toml").write_text(to_toml(tiny_recipe()), encoding="utf-8")
    return hub


def test_cifar10_is_trained_on_from_the_hub(cifar10, capsys):
    cifar10.faults.append(Fault("GET .*test-00000", sends=100, piece=10))
    assert run(TRAIN) == 1
    assert "uoft-cs/cifar10: the download broke off" in said(capsys)
    cifar10.faults.clear()
    before = len(cifar10.gets())
    assert run(TRAIN) == 0
    assert cifar10.gets()[before:] == ["test-00000-of-00001.parquet"]  # what had come whole is kept
    assert "40 rows of the split train (not of test), 10 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("api/datasets", 429, headers={"Retry-After": "7"}), "limits how often it is asked"),
        (Fault("api/datasets", 403, "GatedRepo"), "its owner grants access on the hub"),
        (Fault("api/datasets", 401, "RepoNotFound"), "none of this name on the hub, or a private one"),
        (Fault("api/datasets", 404, "RepoNotFound"), "none of this name on the hub"),
        (Fault("api/datasets", 503), "does not answer: "),
    ],
)
def test_a_data_set_that_is_not_to_be_had_is_one_line(fault, expected, cifar10, capsys):
    cifar10.faults.append(fault)
    assert run(TRAIN) == 1
    assert expected in said(capsys)
