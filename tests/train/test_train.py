"""`gtool train` from the command line: what a run leaves, how it stops, how it goes on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from threading import Timer

import pytest
import torch
from safetensors.torch import load_file

from gtool import console
from gtool.cli import run
from gtool.io.weights import save_state
from gtool.train.run import stop_signals
from tests.helpers import runs
from tests.helpers.forked import Process, places
from tests.helpers.runs import assert_same_state, final_state, kill_at, wait_for
from tests.helpers.tiny import tiny_recipe


def recipe(*settings: str) -> str:
    return runs.write_recipe(tiny_recipe(*settings))


def train(recipe: str, out: str, *more: str) -> int:
    return runs.train("transgan", recipe, out, *more)


def logged_steps(out: str) -> list[int]:
    return [json.loads(line)["steps"] for line in Path(out, "log.jsonl").read_text().splitlines()]


def start(recipe: str, out: str, *more: str) -> Process:
    return runs.start("transgan", recipe, out, *more)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing disturbed, as `(folder, what --json printed)`."""
    folder = tmp_path_factory.mktemp("straight")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setenv("GTOOL_CACHE", str(folder / "cache"))
        assert train(recipe(), "out", "--json", "--tracker", "tensorboard") == 0
    return folder / "out", json.loads(printed.getvalue())


def test_a_run_leaves_everything_that_is_promised(straight):
    out, record = straight
    assert {"recipe.toml", "log.jsonl", "curves.png", "training.webp", "samples"} <= {
        p.name for p in out.iterdir()
    }
    assert record["kimg"] == 0.16
    assert (out.parent / record["weights"]).is_file()
    assert (out.parent / record["grid"]).is_file()
    assert {"rfd", "rfd_floor", "swd_16"} <= record["scores"].keys()
    ticks = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [tick["steps"] for tick in ticks] == list(range(11))
    assert ticks[0]["rfd"] > ticks[-1]["rfd_floor"]
    assert not list(out.rglob("*.tmp*"))
    assert list(out.rglob("events.out.tfevents.*"))  # of --tracker tensorboard


def test_the_saved_recipe_runs_again_to_the_same_weights_and_says_what_runs_and_what_is_next(
    straight, capsys
):
    assert train(f"{straight[0]}/recipe.toml", "second") == 0
    assert_same_state(straight[0], "second")
    lines = capsys.readouterr().err.strip().splitlines()
    for word in ("recipe", "parameters", "CPU", "fp32", "about"):
        assert word in lines[1]
    assert lines[0].startswith("data: scenes: 64 images")
    assert "gtool sample second" in lines[-1]


def test_more_kimg_go_on_where_the_run_ended(straight, capsys):
    assert train(recipe(), "out", "--kimg", "0.08") == 0
    before = Path("out/recipe.toml").read_text()
    capsys.readouterr()
    assert run(["train", "transgan", "--resume", "out", "--kimg", "0.05", "--device", "cpu"]) == 0
    assert "nothing to do: 0.05 kimg are over; --kimg counts the whole run" in capsys.readouterr().err
    assert Path("out/recipe.toml").read_text() == before
    assert run(["train", "transgan", "--resume", "out", "--kimg", "0.16", "--device", "cpu"]) == 0
    assert_same_state(straight[0], "out")
    assert logged_steps("out") == list(range(11))


@pytest.mark.parametrize(
    "moment", ["log.jsonl", "state-*", ".state-*"], ids=["start", "snapshot", "while writing"]
)
def test_a_killed_run_resumes_to_the_same_bits(straight, moment):
    text = recipe("train.metrics=[]")
    kill_at(moment, "killed", start(text, "killed"))
    assert train(text, "killed", "--resume", "auto") == 0
    assert_same_state(straight[0], "killed")
    assert logged_steps("killed") == list(range(11))
    assert not list(Path("killed").rglob("*.tmp*"))


def test_a_folder_that_a_run_was_killed_in_at_birth_is_used(straight, capsys):
    Path("out/samples").mkdir(parents=True)
    Path("out/.lock").touch()
    Path("out/.recipe.1.tmp.toml").write_text("half")
    assert train(recipe(), "out", "--resume", "auto") == 0
    assert "--resume auto: no run to go on with; a new one begins" in capsys.readouterr().err
    assert_same_state(straight[0], "out")
    assert not list(Path("out").rglob("*.tmp*"))


@pytest.fixture
def stopped(straight):
    """A copy of the run; it learns from `scenes`."""
    return shutil.copytree(straight[0], "stopped")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--dataset", "."], 2, "stopped: learns from scenes, and a resumed run keeps its data; leave out ."),
        (["--set", "data.flip=false"], 2, "stopped: a resumed run keeps its data.flip"),
        (["--set", "model.z_dim=4"], 2, "stopped: a resumed run keeps its networks"),
        (["--batch-size", "4"], 2, "stopped: a resumed run keeps its train.batch_size"),
        (["--seed", "4"], 2, "stopped: a resumed run keeps its train.seed"),
        (["--weights", "stopped"], 2, "stopped: a resumed run keeps its train.weights"),
        (["--recipe", "cifar10"], 2, "--recipe cannot change a run that is resumed"),
        (["--out", "other"], 2, "--out names a new run; --resume stopped goes on in its own folder"),
    ],
    ids=str,
)
def test_what_a_resumed_run_keeps_cannot_be_changed(stopped, arguments, status, said, capsys):
    before = {path: path.stat().st_mtime_ns for path in Path(stopped).rglob("*")}
    assert run(["train", "transgan", "--resume", stopped, *arguments]) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert {path: path.stat().st_mtime_ns for path in Path(stopped).rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ({"best": 100_000}, "`best`"),
        ({"best": {"rfd": "nan"}}, "`best.rfd"),
        ({"nimg": float("inf")}, "state.json"),
        ({"steps": None}, "`steps`"),
    ],
    ids=["nested", "number", "nan", "infinite", "missing"],
)
def test_a_damaged_state_is_one_line(stopped, change, said, capsys):
    file = sorted(Path(stopped).glob("state-*"))[-1] / "state.json"
    text = change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change)
    file.write_text(text)
    assert run(["train", "transgan", "--resume", stopped, "--kimg", "0.2", "--device", "cpu"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "not a readable state" in line
    assert said in line


@pytest.fixture
def damaged(stopped):
    """The run with a cut newest state, half of a deleted one, and a cut grid."""
    for file in (f"{stopped}/state-000000.160/generator.safetensors", f"{stopped}/samples/000000.048.png"):
        os.truncate(file, Path(file).stat().st_size // 2)
    Path(stopped, "state-000000.096/state.json").unlink(missing_ok=True)
    return stopped


def test_where_the_newest_state_is_damaged_the_older_one_is_named(damaged, straight, monkeypatch, capsys):
    monkeypatch.setenv("HOME", os.getcwd())  # what `~` of --resume=~/... means, which shells leave as it is
    assert run(["train", "transgan", "--resume", damaged, "--device", "cpu"]) == 1
    assert capsys.readouterr().err.strip().endswith("an older state: --resume stopped/state-000000.144")
    assert run(["train", "transgan", "--resume", f"~/{damaged}/state-000000.144", "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "removed state-000000.160, weights-000000.160.safetensors, which came after" in said
    assert "samples/000000.048.png: left out of the animation" in said
    assert_same_state(straight[0], damaged)
    assert logged_steps(damaged) == list(range(11))


def test_auto_takes_the_older_state_and_says_so(damaged, straight, capsys):
    assert run(["train", "transgan", "--out", damaged, "--resume", "auto", "--device", "cpu"]) == 0
    assert "goes on from state-000000.144" in capsys.readouterr().err
    assert_same_state(straight[0], damaged)
    assert all(path.joinpath("state.json").exists() for path in Path(damaged).glob("state-*"))


def test_a_resumed_run_keeps_its_threads_whatever_the_machine_does(stopped, monkeypatch):
    """Sums are rounded in another order by another number of them."""
    file = sorted(Path(stopped).glob("state-*"))[-1] / "state.json"
    info = json.loads(file.read_text())
    assert info["threads"] == torch.get_num_threads()
    file.write_text(json.dumps(info | {"threads": 2}))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run(["train", "transgan", "--resume", stopped, "--kimg", "0.2", "--device", "cpu"]) == 0
    newest = sorted(Path(stopped).glob("state-*"))[-1] / "state.json"
    assert newest != file
    assert json.loads(newest.read_text())["threads"] == 2


def test_a_resumed_run_keeps_the_augmentation_that_it_had_come_to():
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
def test_a_signal_saves_the_state_and_sets_the_exit_status(signum, status):
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


def test_a_signal_at_a_snapshot_leaves_its_grid():
    process = start(recipe("train.kimg=400", "train.metrics=[]", "train.snapshot_kimg=0.008"), "out")
    wait_for(Path("out"), "state-*", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    states = [path.name.removeprefix("state-") for path in Path("out").glob("state-*")]
    assert process.returncode == 143
    assert {path.stem for path in Path("out/samples").glob("0*.png")} >= {
        f"{float(x):010.3f}" for x in states
    }


def test_a_signal_that_interrupts_a_print_is_noted(monkeypatch):
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "w", encoding="utf-8") as stuck:
        monkeypatch.setattr(sys, "stderr", stuck)
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        with stop_signals() as received:
            later = [Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)), Timer(0.6, os.read, (reader, 10**6))]
            for timer in later:
                timer.start()
            console.notice("waits until there is room for it")
            assert received() == signal.SIGTERM
            for timer in later:
                timer.join()


def test_a_run_that_is_being_trained_is_refused(capsys):
    text = recipe("train.kimg=400", "train.metrics=[]", "train.snapshot_kimg=0.1")
    process = start(text, "out")
    try:
        wait_for(Path("out"), "state-*", process)
        assert run(["train", "transgan", "--resume", "out", "--device", "cpu"]) == 1
        assert f" on {socket.gethostname()} is training in this run folder: out" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()


def test_diverging_exits_with_5_and_keeps_the_last_good_state(capsys):
    text = recipe("optim.clip_grad_norm=1e9", "loss.gradient_penalty=0.0", "train.kimg=2")
    assert train(text, "out", "--set", "train.snapshot_kimg=0.016", "--set", "optim.learning_rate=1e20") == 5
    assert "diverged" in capsys.readouterr().err.strip().splitlines()[-1]
    for file in Path("out").rglob("*.safetensors"):
        assert all(torch.isfinite(v).all() for v in load_file(file).values()), file


def test_an_existing_folder_is_refused_and_left_alone(capsys):
    Path("out").mkdir()
    Path("out/precious.txt").write_text("mine")
    assert train(recipe(), "out") == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert [p.name for p in Path("out").iterdir()] == ["precious.txt"]


def test_a_place_that_cannot_be_written_is_one_line(capsys):
    Path("file").write_text("no folder")
    assert train(recipe(), "file/out") == 1
    assert "file/out: cannot be made" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_last_state_stays(monkeypatch, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(path, *rest):
        if "0.096" in path.name:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))  # bytes a file
        save_state(path, *rest)

    monkeypatch.setattr("gtool.train.run.save_state", limited)
    try:
        status = train(recipe("train.metrics=[]"), "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert status == 1, said
    assert "cannot be written" in said.splitlines()[-1]
    assert [p.name for p in Path("out").glob("*state*")] == ["state-000000.048"]


@pytest.mark.parametrize(
    ("arguments", "status", "fragment"),
    [
        ("transgun", 2, "did you mean `transgan`"),
        ("transgan --recipe scenez", 2, "did you mean `scenes`"),
        ("transgan --set data.resolution=40", 2, "40"),
        ("transgan --batch-size 33 --num-processes 2", 2, "cannot be divided by 2"),
        ("transgan --set loss.component_mixing=0.1", 2, "transgan, only for gansformer"),
        ("transgan --set loss.super_resolution=1", 2, "add model.generator.super_resolution = true"),
        ("transgan --set loss.style_mixing=0.9 --dry-run", 2, "style_mixing=0.9: means"),
        ("transgan --set augment.target=2", 2, "`augment.target` = 2"),
        (
            "gansformer --set train.share_fakes=false --set loss.path_length=2.0 --set loss.path_length_batch_shrink=5",
            2,
            "does not divide the generator's batch",
        ),
        ("transgan --finetune .", 2, "is for paint-transformer; transgan learns"),
        ("vqgan --weights x", 2, "cannot begin with weights"),
        ("gansformer --weights transgan", 1, "weights of transgan, not of gansformer"),
        (
            "transgan --weights transgan --set data.resolution=32",
            2,
            "of 64 px, and a network keeps its size; data.resolution = 32 needs others",
        ),
        (
            "transgan --weights transgan --set data.condition=class",
            2,
            "without classes; leave data.condition out",
        ),
        ("transgan --set augment.policy=colour", 2, "color"),
        ("transgan --precision fp8", 2, "--precision: `train.precision` = 'fp8'"),
        ("transgan --tokenizer x", 2, "--tokenizer: means nothing for transgan, only for prior"),
        ("vqgan --set loss.kind=hinge", 2, "--set loss.kind=hinge: means nothing for vqgan"),
        ("transgan --set data.condition=class", 1, "scenes: no class labels"),
        ("gansformer --set data.condition=depth", 2, "gansformer knows none but 'class'"),
        ("transgan --set train.kimgs=1", 2, "error: --set train.kimgs=1: unknown key"),
        ("transgan --set model.z_dims=1", 2, "error: --set model.z_dims=1: unknown key"),
        ("transgan --set train.micro_batch=7", 2, "error: --set train.micro_batch=7: train.batch"),
        ("transgan --set train.kimg=inf", 2, "finite"),
        ("transgan --set 'optim.betas=[0.5, 2.0]'", 2, "less than 1"),
        ("transgan --tracker mlflow", 2, "use tensorboard, trackio, wandb"),
        ("transgan --kimg -1", 2, "greater than 0"),
        ("transgan --dataset ./nothing", 1, "./nothing"),
        ("transgan --resume nothing", 1, "no such run folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, status, fragment, capsys, tmp_path):
    assert run(["train", *shlex.split(arguments)]) == status
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert fragment in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_two_processes_train_as_one():
    # 6 steps at the rate of the paper; Adam amplifies the rounding of sums, faster at higher rates.
    text = recipe("train.kimg=0.096", "train.micro_batch=2", "train.metrics=[]", "optim.learning_rate=1e-4")
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
    logs = [Path(out, "log.jsonl").read_text().splitlines()[1:] for out in ("one", "two")]
    for alone, together in zip(*(map(json.loads, log) for log in logs), strict=True):
        for name in ("discriminator_loss", "real_logit", "fake_logit", "penalty", "generator_loss"):
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name  # means over both


def test_an_error_in_one_of_several_processes_is_one_line_with_its_status():
    Path("out").mkdir()
    Path("out/precious.txt").write_text("mine")
    process = start(recipe(), "out", "--num-processes", "2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert [line for line in errors.splitlines() if "error:" in line] == [
        "error: out: exists and is not empty; choose another --out"
    ]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_of_several_processes_ends_them_as_one(signum, status):
    text = recipe("train.kimg=400", "train.metrics=[]", "train.snapshot_kimg=400")
    process = start(text, "out", "--num-processes", "2")
    wait_for(Path("out"), "samples/*00.png", process)
    time.sleep(0.3)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert "--resume out" in errors.splitlines()[-1]
    assert "error:" not in errors
    assert "torch" not in errors
    assert list(Path("out").glob("state-*/state.json"))


def test_the_number_of_processes_is_asserted():
    environment = places(0, 1) | {"MASTER_PORT": "29511"}
    arguments = ["train", "transgan", "--recipe", recipe(), "--num-processes", "2"]
    alone = Process(arguments, environment)
    _, errors = alone.communicate(timeout=60)
    assert alone.returncode == 1
    assert "2 processes were asked for and 1" in errors


def test_dry_run_prints_a_recipe_and_writes_nothing(capsys, tmp_path):
    text = recipe()
    before = sorted(tmp_path.rglob("*"))
    assert run(["train", "transgan", "--recipe", text, "--dry-run", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "[model.generator]" in printed.out
    for word in ("parameters", "GFLOP", "GiB", "about"):
        assert word in printed.err
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_looks_at_data_as_a_run_does(capsys, tmp_path):
    for name, contents in (("empty", []), ("one", [b""]), ("broken", [b"no image"] * 3)):
        Path(name).mkdir()
        for number, content in enumerate(contents):
            Path(name, f"{number}.png").write_bytes(content)
    for name, said in (
        ("./missing", "no such folder"),
        ("no/such", "no such folder"),
        ("empty", "no images found"),
        ("one", "at least 2"),
        ("broken", "0 of 3 images can be read, and 2 are needed; 0.png"),
    ):
        for more in (["--dry-run"], ["--out", "out"]):
            assert run(["train", "transgan", "--dataset", name, "--device", "cpu", *more]) == 1
            assert said in capsys.readouterr().err
    assert not Path("out").exists()
