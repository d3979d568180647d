"""`gtool export --format hub`: the folder, the card, and what is sent to a server that answers as the hub does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gtool.cli import run
from gtool.export.hub import public
from gtool.io.files import digest_of
from gtool.io.run_folder import read_meta
from tests.helpers.hub_server import Fault

EXPORT = ["export", "runs/transgan-scenes-000", "--format", "hub", "--repo", "me/my-model"]
FILES = ["README.md", "model.safetensors", "samples.png"]


def card(folder):
    """Return the header and the text of a model card."""
    _, header, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def test_a_dry_run_writes_the_folder_and_sends_nothing(tiny_run, capsys, hub):
    assert run([*EXPORT, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "my-model\n"
    assert "no scores of these weights are known" in shown.err
    assert sorted(path.name for path in Path("my-model").iterdir()) == FILES
    assert hub.asked == []
    header, text = card(Path("my-model"))
    assert header["tags"] == ["gtool", "transgan"]
    assert "model-index" not in header
    assert "gtool sample me/my-model" in text
    assert "![Samples](samples.png)" in text
    assert "`scenes`, split `train`" in text
    assert "[model.generator]" in text
    assert run([*EXPORT, "--dry-run"]) == 1  # the folder is there


def test_the_card_has_the_last_scores_of_these_weights(tiny_run):
    weights = next(tiny_run.glob("weights-*.safetensors"))

    def line(value, digest=digest_of(weights)):
        score = {
            "value": value,
            "protocol": "rfd-v1/n32/ref-scenes-train-n32",
            "floor": 2.0,
            "low": 8,
            "high": 8.5,
        }
        return json.dumps({"weights_sha256": digest, "metrics": {"rfd": score}})

    lines = [line(9.0), line(8.25), line(1.0, digest="0" * 64), '{"weights_sha256": "cut']
    (tiny_run / "eval.jsonl").write_text("\n".join(lines))
    assert run([*EXPORT, "--dry-run", "-o", "folder"]) == 0
    header, text = card(Path("folder"))
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "rfd", "value": 8.25, "name": "rfd-v1/n32/ref-scenes-train-n32"}]
    assert "| rfd | 8.25 (8 to 8.5, 95 %) | 2 | `rfd-v1/n32/ref-scenes-train-n32` |" in text


def test_where_files_lay_is_not_published(tmp_path, monkeypatch):
    given = {
        "data": {"dataset": "/home/me/my photos/", "flip": True},
        "prior": {"tokenizer": "~/runs/t.safetensors"},
    }
    assert public(given) == {
        "data": {"dataset": "my photos", "flip": True},
        "prior": {"tokenizer": "t.safetensors"},
    }
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clients" / "faces").mkdir(parents=True)
    there = {"a": "../clients/faces", "b": "./faces", "c": "clients/faces", "d": "clients/others"}
    assert public(there) == {"a": "faces", "b": "faces", "c": "faces", "d": "clients/others"}
    assert public(["uoft-cs/cifar10", r"C:\photos"]) == ["uoft-cs/cifar10", r"C:\photos"]


def test_what_is_pushed_can_be_sampled(tiny_run, hub, capsys):
    assert run([*EXPORT, "--half", "--json"]) == 0
    sent = hub.repositories["model/me/my-model"]
    assert sorted(sent) == FILES
    assert json.loads(capsys.readouterr().out) == {
        "url": f"{hub.address}/me/my-model",
        "repository": "me/my-model",
        "format": "hub",
        "bytes": sum(map(len, sent.values())),
    }
    assert run([*EXPORT]) == 0  # into the repository that is there
    assert run(["sample", "me/my-model", "--num", "1", "--device", "cpu", "-o", "one.png"]) == 0
    fetched = next(Path("hub").glob("models--me--my-model/snapshots/*/model.safetensors"))
    assert read_meta(fetched)["nimg"] == 12_000


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            Fault("repos/create", 401),
            "the hub does not know you; run `hf auth login` with a token that may write",
        ),
        (Fault("preupload", 403), "the hub does not let you write there; run `hf auth login`"),
        (Fault("commit", 429, headers={"Retry-After": "9"}), "limits how often it is asked (429); wait 9 s"),
        (Fault("commit", 400), "the upload broke off: "),
    ],
)
def test_a_push_that_fails_is_one_line_and_a_rerun_sends_what_is_missing(
    fault, expected, tiny_run, hub, capsys
):
    hub.faults.append(fault)
    assert run(EXPORT) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert expected in lines[-1]
    before = len(hub.asked)
    hub.faults.clear()
    assert run(EXPORT) == 0
    sent_again = [asked for asked in hub.asked[before:] if asked.startswith("PUT ")]
    assert bool(sent_again) == ("commit" not in fault.pattern)


def test_without_the_hub_the_dry_run_is_named(tiny_run, monkeypatch, capsys):
    monkeypatch.setattr("gtool.io.hub.is_reachable", lambda: False)
    assert run(EXPORT) == 1
    assert "the hub cannot be reached; --dry-run writes the folder alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--format", "hub"], "--format hub needs the repository, as --repo me/my-model"),
        (["--format", "hub", "--repo", "my-model"], "--repo my-model: --format hub needs the repository"),
        (["--repo", "me/my-model"], "--repo is of --format hub"),
        (["--dry-run"], "--dry-run is of --format hub"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, expected, tiny_run, capsys):
    assert run(["export", *arguments]) == 2
    assert expected in capsys.readouterr().err
