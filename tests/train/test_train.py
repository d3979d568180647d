"""`gtool train` from the command line: what a run leaves, how it stops, how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gtool.cli import run
from gtool.config.recipe import to_toml
from tests.helpers import runs
from tests.helpers.runs import assert_same_state, final_state, kill_at, wait_for
from tests.helpers.tiny import tiny_recipe


@pytest.fixture
def recipe(tmp_path):
    """A tiny recipe as a file; returns a function that writes it with settings."""

    def write(*settings: str) -> str:
        path = tmp_path / "tiny.toml"
        path.write_text(to_toml(tiny_recipe(*settings)), encoding="utf-8")
        return str(path)

    return write


def train(recipe: str, out: str, *more: str) -> int:
    return runs.train("transgan", recipe, out, *more)


def start(recipe: str, out: str, *more: str) -> subprocess.Popen:
    return runs.start("transgan", recipe, out, *more)


def test_a_run_leaves_everything_that_is_promised(recipe, capsys):
    assert train(recipe(), "out", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    out = Path("out")
    assert {"recipe.toml", "log.jsonl", "curves.png", "training.webp", "samples"} <= {
        p.name for p in out.iterdir()
    }
    assert record["kimg"] == 0.16
    assert Path(record["weights"]).is_file()
    assert Path(record["grid"]).is_file()
    assert {"rfd", "rfd_floor", "swd_16"} <= record["scores"].keys()
    ticks = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [tick["steps"] for tick in ticks] == list(range(11))
    assert ticks[0]["rfd"] > ticks[-1]["rfd_floor"]
    assert not list(out.rglob("*.tmp*"))


def test_the_first_and_last_lines_say_what_runs_and_what_to_do_next(recipe, capsys):
    assert train(recipe(), "out") == 0
    lines = capsys.readouterr().err.strip().splitlines()
    for word in ("tiny", "parameters", "CPU", "fp32", "about"):
        assert word in lines[0]
    assert "gtool sample out" in lines[-1]


def test_the_saved_recipe_runs_again_to_the_same_weights(recipe):
    assert train(recipe(), "first") == 0
    assert train("first/recipe.toml", "second") == 0
    assert_same_state("first", "second")


def test_more_kimg_go_on_where_the_run_ended(recipe):
    assert train(recipe(), "straight") == 0
    assert train(recipe(), "out", "--kimg", "0.08") == 0
    assert run(["train", "transgan", "--resume", "out", "--kimg", "0.16", "--device", "cpu"]) == 0
    assert_same_state("straight", "out")
    steps = [json.loads(line)["steps"] for line in Path("out/log.jsonl").read_text().splitlines()]
    assert steps == list(range(11))


@pytest.mark.parametrize(
    "moment", ["log.jsonl", "state-*", ".state-*"], ids=["start", "snapshot", "while writing"]
)
def test_a_killed_run_resumes_to_the_same_bits(recipe, moment):
    text = recipe("train.kimg=0.4", "train.metrics=[]")
    assert train(text, "straight") == 0
    kill_at(moment, "killed", start(text, "killed"))
    assert train(text, "killed", "--resume", "auto") == 0
    assert_same_state("straight", "killed")
    assert not list(Path("killed").rglob("*.tmp*"))


def test_a_resumed_run_keeps_the_augmentation_that_it_had_come_to(recipe):
    adaptive = ["augment.policy=ada-blit,ada-color", "augment.target=0.0", "augment.kimg=0.2"]
    text = recipe("train.metrics=[]", *adaptive)
    assert train(text, "straight") == 0
    assert train(text, "out", "--kimg", "0.112") == 0  # between two changes of it
    assert run(["train", "transgan", "--resume", "out", "--kimg", "0.16", "--device", "cpu"]) == 0
    assert_same_state("straight", "out")
    seen = [
        [json.loads(line).get("augment_p") for line in Path(name, "log.jsonl").read_text().splitlines()]
        for name in ("straight", "out")
    ]
    assert seen[0] == seen[1]
    assert max(seen[0][1:]) > 0


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_sets_the_exit_status(recipe, signum, status):
    text = recipe("train.kimg=400", "train.metrics=[]", "train.snapshot_kimg=400")
    process = start(text, "out")
    wait_for(Path("out"), "samples/*00.png", process)
    time.sleep(0.3)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "--resume out" in errors.splitlines()[-1]
    assert list(Path("out").glob("state-*/state.json"))
    assert list(Path("out").glob("weights-*.safetensors"))


def test_a_run_that_is_being_trained_is_refused(recipe, capsys):
    text = recipe("train.kimg=400", "train.metrics=[]", "train.snapshot_kimg=0.1")
    process = start(text, "out")
    try:
        wait_for(Path("out"), "state-*", process)
        assert run(["train", "transgan", "--resume", "out", "--device", "cpu"]) == 1
        assert "another process is training" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()


def test_diverging_exits_with_5_and_keeps_the_last_good_state(recipe, capsys):
    text = recipe("optim.clip_grad_norm=1e9", "loss.gradient_penalty=0.0", "train.kimg=2")
    assert train(text, "out", "--set", "train.snapshot_kimg=0.016", "--set", "optim.learning_rate=1e20") == 5
    assert "diverged" in capsys.readouterr().err.strip().splitlines()[-1]
    for file in Path("out").rglob("*.safetensors"):
        assert all(torch.isfinite(v).all() for v in load_file(file).values()), file


def test_an_existing_folder_is_refused_and_left_alone(recipe, capsys):
    Path("out").mkdir()
    Path("out/precious.txt").write_text("mine")
    assert train(recipe(), "out") == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert [p.name for p in Path("out").iterdir()] == ["precious.txt"]


def test_a_place_that_cannot_be_written_is_one_line(recipe, capsys):
    Path("file").write_text("no folder")
    assert train(recipe(), "file/out") == 1
    assert "file/out: cannot be made" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_last_state_stays(recipe):
    code = (
        "import resource, signal, sys; from gtool.cli import run\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import gtool.io.weights as c; save = c.save_state\n"
        "def limited(path, *rest):\n"
        "    if '0.096' in path.name: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "    save(path, *rest)\n"
        "c.save_state = limited\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    text = recipe("train.metrics=[]")
    command = ["train", "transgan", "--recipe", text, "--out", "out", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert [p.name for p in Path("out").glob("*state*")] == ["state-000000.048"]


@pytest.mark.parametrize(
    ("arguments", "status", "fragment"),
    [
        (["train", "transgun"], 2, "did you mean `transgan`"),
        (["train", "transgan", "--recipe", "scenez"], 2, "did you mean `scenes`"),
        (["train", "transgan", "--set", "data.resolution=40"], 2, "40"),
        (["train", "transgan", "--batch-size", "33", "--num-processes", "2"], 2, "cannot be divided by 2"),
        (["train", "transgan", "--set", "loss.component_mixing=0.1"], 2, "no latent for each component"),
        (["train", "transgan", "--set", "loss.style_mixing=0.9", "--dry-run"], 2, "loss.style_mixing: this"),
        (["train", "transgan", "--set", "augment.target=2"], 2, "`augment.target` = 2"),
        (
            [
                "train",
                "transgan",
                "--recipe",
                "cifar10",
                "--set",
                "loss.path_length=2.0",
                "--set",
                "loss.path_length_batch_shrink=5",
            ],
            2,
            "does not divide the generator's batch",
        ),
        (["train", "transgan", "--finetune", "."], 2, "is for paint-transformer; transgan learns"),
        (["train", "transgan", "--weights", "x"], 2, "cannot begin with weights"),
        (["train", "transgan", "--set", "augment.policy=colour"], 2, "color"),
        (["train", "transgan", "--precision", "fp8"], 2, "fp8"),
        (["train", "transgan", "--tracker", "wandb"], 2, "tensorboard"),
        (["train", "transgan", "--kimg", "-1"], 2, "greater than 0"),
        (["train", "transgan", "--dataset", "./nothing"], 1, "./nothing"),
        (["train", "transgan", "--resume", "nothing"], 1, "no such run folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, status, fragment, capsys, tmp_path):
    assert run(arguments) == status
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert fragment in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_two_processes_train_as_one(recipe):
    # 20 steps at the rate of the paper; Adam amplifies the rounding of sums, faster at higher rates.
    text = recipe("train.kimg=0.32", "train.micro_batch=2", "train.metrics=[]", "optim.learning_rate=1e-4")
    assert train(text, "one") == 0
    process = start(text, "two", "--num-processes", "2")
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    one, two = final_state("one"), final_state("two")
    for name in ("generator", "discriminator", "ema"):
        a, b = (
            torch.cat([v.flatten() for k, v in s.items() if k.startswith(f"{name}/")]) for s in (one, two)
        )
        assert ((a - b).norm() / a.norm()).item() < 1e-5


def test_an_error_in_one_of_several_processes_is_one_line_with_its_status(recipe):
    Path("out").mkdir()
    Path("out/precious.txt").write_text("mine")
    process = start(recipe(), "out", "--num-processes", "2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert [line for line in errors.splitlines() if "error:" in line] == [
        "error: out: exists and is not empty; choose another --out"
    ]


def test_the_number_of_processes_is_asserted(recipe, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    for name, value in (
        ("RANK", "0"),
        ("LOCAL_RANK", "0"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "29511"),
    ):
        monkeypatch.setenv(name, value)
    environment = dict(os.environ)
    command = [
        sys.executable,
        "-m",
        "gtool",
        "train",
        "transgan",
        "--recipe",
        recipe(),
        "--num-processes",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "2 processes were asked for and 1" in done.stderr


def test_dry_run_prints_a_recipe_and_writes_nothing(recipe, capsys, tmp_path):
    text = recipe()
    before = sorted(tmp_path.rglob("*"))
    assert run(["train", "transgan", "--recipe", text, "--dry-run", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "[model.generator]" in printed.out
    for word in ("parameters", "GFLOP", "GiB", "about"):
        assert word in printed.err
    assert sorted(tmp_path.rglob("*")) == before


def test_tensorboard_is_written_on_request(recipe):
    pytest.importorskip("tensorboard")
    assert train(recipe(), "out", "--tracker", "tensorboard") == 0
    assert list(Path("out").rglob("events.out.tfevents.*"))
