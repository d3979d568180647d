"""Exit statuses of command lines that cannot work: one line on stderr, nothing on stdout."""

from __future__ import annotations

import pytest

from .commands import RECIPES, gtool, save_pictures

RECIPE = ["--recipe", str(RECIPES / "transgan.toml")]
WRONG = {
    "unknown command": (["draw"], 2, "draw"),
    "unknown flag": (["sample", "--nmu", "4"], 2, "--nmu"),
    "flag without value": (["sample", "--num"], 2, "--num"),
    "number that is none": (["sample", "--num", "four"], 2, "--num"),
    "number out of range": (["sample", "--num", "0"], 2, "--num"),
    "unknown model": (["train", "transgen"], 2, "transgen"),
    "unknown recipe": (["train", "transgan", "--recipe", "nothing"], 2, "nothing"),
    "missing recipe file": (["train", "transgan", "--recipe", "./nothing.toml"], 2, "nothing.toml"),
    "unknown recipe key": (["train", "transgan", *RECIPE, "--set", "train.kimgs=1"], 2, "kimgs"),
    "recipe value of another type": (["train", "transgan", *RECIPE, "--set", "train.kimg=much"], 2, "kimg"),
    "setting without value": (["train", "transgan", *RECIPE, "--set", "train.kimg"], 2, "train.kimg"),
    "missing data": (["train", "transgan", *RECIPE, "--dataset", "./nothing"], 1, "nothing"),
    "nothing to resume": (["train", "transgan", "--resume", "nothing"], 1, "nothing"),
    "prior without tokenizer": (["train", "prior"], 1, "tokenizer"),
    "unknown device": (["train", "transgan", *RECIPE, "--device", "tpu"], 1, "tpu"),
    "nothing trained yet": (["sample"], 1, ""),
    "missing weights": (["sample", "nothing.safetensors"], 1, "nothing.safetensors"),
    "file that is no weights": (["sample", "notes.safetensors"], 1, "notes.safetensors"),
    "missing photo": (["paint", "nothing.jpg"], 1, "nothing.jpg"),
    "unknown method": (["paint", "photos/0.png", "--method", "gready"], 2, "gready"),
    "output without a known suffix": (["paint", "photos/0.png", "-o", "painted.txt"], 2, "painted.txt"),
    "folder alone": (["eval", "./photos", "--rfd"], 2, "--reference"),
    "missing reference": (["eval", "./photos", "--reference", "./nothing", "--rfd"], 1, "nothing"),
    "unknown metric of a gate": (["eval", "./photos", "./photos", "--max", "fidd=20"], 2, "fidd"),
    "gate without number": (["eval", "./photos", "./photos", "--max", "rfd=low"], 2, "rfd=low"),
    "missing baseline": (["eval", "./photos", "./photos", "--max-regress", "rfd=5%"], 2, "--baseline"),
    "missing Inception": (["eval", "./photos", "./photos", "--fid", "--weights", "none.pth"], 1, "none.pth"),
    "unknown format": (["export", "notes.safetensors", "--format", "tflite"], 2, "tflite"),
    "original that is missing": (["export", "nothing.pth", "--from", "transgan"], 1, "nothing.pth"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_has_its_status(name, tmp_path, capsys):
    save_pictures(tmp_path / "photos", 4, 32)
    (tmp_path / "notes.safetensors").write_text("no weights", encoding="utf-8")
    arguments, wanted, named = WRONG[name]
    assert gtool("--quiet", *arguments) == wanted
    shown = capsys.readouterr()
    assert named in shown.err
    assert shown.err.strip()
    assert shown.out == ""
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["train", "--help"], ["recipes", "ls"]])
def test_what_only_says_something_ends_well(arguments, capsys):
    assert gtool(*arguments) == 0
    assert capsys.readouterr().out.strip()


def test_diverging_has_its_status():
    settings = [
        "optim.learning_rate=1e20",
        "optim.clip_grad_norm=1e9",
        "loss.gradient_penalty=0.0",
        "train.kimg=1",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    assert gtool("--quiet", "train", "transgan", *RECIPE, *words, "--out", "out", "--device", "cpu") == 5
