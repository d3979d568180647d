"""One score from several processes, or from machines that share nothing: equal to that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gtool
from gtool.checkpoint import load_weights, save_weights
from gtool.cli import run
from gtool.commands.shards import Shard
from tests import pictures, small_inception
from tests.test_eval_hygiene import save

EVERY = ("--fid", "--kid", "--is", "--pr", "--density", "--rfd", "--swd")


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    return small_inception.install(tmp_path, monkeypatch)


def ask(capsys, *arguments):
    assert run(["eval", *map(str, arguments), "--json", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


def make_parts(capsys, target, *arguments, total=3):
    """Score each shard into a file of its own; returns the files."""
    files = [f"part-{number}.safetensors" for number in range(1, total + 1)]
    for number, file in enumerate(files, 1):
        ask(capsys, *target, *arguments, "--shard", f"{number}/{total}", "-o", file)
    return files


def test_shards_are_neighbours_that_leave_nothing_out():
    for count, total, grain in ((10, 3, 1), (100, 7, 16), (16, 16, 1)):
        try:
            bounds = [Shard(number, total).bounds(count, grain) for number in range(1, total + 1)]
        except gtool.errors.DataError:
            assert grain > 1
            continue
        assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
        assert bounds[-1][1] == count
        assert all(start % grain == 0 for start, _ in bounds)


def test_parts_of_a_run_merge_into_the_score_of_one_process(tiny_run, capsys):
    """Not bit for bit: a forward of other sizes rounds otherwise, and sums come in another order."""
    options = (*EVERY, "--num", 40, "--batch-size", 8, "--precision", "fp32")
    whole = ask(capsys, tiny_run, *options)
    merged = ask(capsys, "--merge", *make_parts(capsys, [tiny_run], *options))
    assert merged["metrics"].keys() == whole["metrics"].keys()
    for name, found in merged["metrics"].items():
        expected = whole["metrics"][name]
        assert found["value"] == pytest.approx(expected["value"], rel=1e-6, abs=1e-9), name
        assert {**found, **dict.fromkeys(("value", "deviation", "ratio"))} == {
            **expected,
            **dict.fromkeys(("value", "deviation", "ratio")),
        }
    assert merged["merged"] == 3
    assert merged["target"] == whole["target"]
    kept = (tiny_run / "eval.jsonl").read_text().splitlines()
    assert len(kept) == 2  # parts are no scores


def test_moments_of_parts_are_those_of_the_whole(tiny_run, capsys, monkeypatch):
    """As many images as moments are kept of, instead of rows: here 16."""
    from gtool.metrics.fid import FeatureCollector

    monkeypatch.setattr("gtool.metrics.fid.ROWS_AT_ONCE", 16)
    options = ("--fid", "--num", 70, "--batch-size", 8, "--precision", "fp32", "--reference", "real")
    save(Path("real"), pictures.draw(4, seed=2))
    collected = []
    for total in (1, 2):
        collector = FeatureCollector()
        for file in make_parts(capsys, [tiny_run], *options, total=total):
            part = load_weights(Path(file)).tensors
            assert "features.rows" not in part
            collector.absorb(
                {
                    name.removeprefix("features."): t
                    for name, t in part.items()
                    if name.startswith("features.")
                }
            )
        collected.append(collector.features().gaussian)
    whole, merged = collected
    assert whole.count == merged.count == 70
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-9, atol=1e-9)


def test_parts_of_folders_merge_in_any_order_and_open_the_reference_once(tmp_path, capsys):
    fake, real = (save(tmp_path / name, pictures.draw(30, seed)) for name, seed in (("fake", 1), ("real", 2)))
    whole = ask(capsys, fake, real, "--kid", "--rfd")
    files = make_parts(capsys, [fake, real], "--kid", "--rfd")
    moved = real.rename(tmp_path / "elsewhere")  # on the machine that merges
    assert run(["eval", "--merge", *files]) == 1
    assert "real" in capsys.readouterr().err
    merged = ask(capsys, "--merge", *reversed(files), "--reference", moved)
    assert merged["metrics"]["kid"]["value"] == pytest.approx(whole["metrics"]["kid"]["value"], rel=1e-6)
    assert merged["metrics"]["rfd"]["value"] == pytest.approx(whole["metrics"]["rfd"]["value"], rel=1e-6)
    other = save(tmp_path / "other", pictures.draw(30, seed=3))
    assert run(["eval", "--merge", *files, "--reference", str(other)]) == 1
    assert "not the images that the parts were compared with" in capsys.readouterr().err


def test_parts_that_need_no_reference_do_not_open_one(tiny_run, tmp_path, capsys):
    options = ("--fid", "--num", 12, "--precision", "fp32", "--reference")
    real = save(tmp_path / "real", pictures.draw(8, seed=2))
    whole = ask(capsys, tiny_run, *options, real)
    for path in real.iterdir():
        path.write_bytes(b"")
    files = make_parts(capsys, [tiny_run], *options, real)
    save(real, pictures.draw(8, seed=2))
    merged = ask(capsys, "--merge", *files)
    assert merged["metrics"]["fid"]["value"] == pytest.approx(whole["metrics"]["fid"]["value"], rel=1e-6)


WRONG = {
    "missing": (["{a1}", "{a3}"], "without shard 2/3"),
    "doubled": (["{a1}", "{a2}", "{a2}", "{a3}"], "shard 2/3 is there twice"),
    "seed": (["{a1}", "{b2}", "{a3}"], "another seed than part-1.safetensors: 1, not 0"),
    "metrics": (["{a1}", "{c2}", "{a3}"], "another metrics"),
    "number": (["{a1}", "{d2}", "{a3}"], "another number of images"),
    "shards": (["{a1}", "{e1}"], "another number of shards"),
    "no part": (["{a1}", "{weights}"], "no part of a score"),
    "nothing": ([], "name the parts"),
}


@pytest.fixture
def parts(tiny_run, capsys):
    """Parts of a score (a), and some that do not belong to them."""
    options = ["--kid", "--num", 12, "--reference", save(Path("real"), pictures.draw(8, seed=2))]
    names = {f"a{number}": file for number, file in enumerate(make_parts(capsys, [tiny_run], *options), 1)}
    others = {"b2": ["--seed", 1], "c2": ["--fid"], "d2": ["--num", 15]}
    for name, more in others.items():
        ask(capsys, tiny_run, *options, *more, "--shard", "2/3", "-o", f"{name}.safetensors")
        names[name] = f"{name}.safetensors"
    ask(capsys, tiny_run, *options, "--shard", "1/4", "-o", "e1.safetensors")
    return names | {"e1": "e1.safetensors", "weights": str(tiny_run / "weights-000012.safetensors")}


def test_parts_that_do_not_belong_together_are_refused_by_name(parts, capsys, tmp_path, monkeypatch):
    for case, (words, said) in WRONG.items():
        status = run(["--quiet", "eval", "--merge", *(word.format(**parts) for word in words)])
        lines = capsys.readouterr().err.strip().splitlines()
        assert (status, len(lines)) == (2 if case == "nothing" else 1, 1), case
        assert said in lines[0], case
    good = [parts[name] for name in ("a1", "a2", "a3")]
    stored = load_weights(Path(good[1]))
    cut = {name: tensor for name, tensor in stored.tensors.items() if name != "features.rows"}
    save_weights(Path(good[1]), cut, {k: v for k, v in stored.meta.items() if k != "format"})
    assert run(["eval", "--merge", *good]) == 1
    assert "does not hold what its header promises" in capsys.readouterr().err
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    assert run(["eval", "--merge", *good, "--weights", str(other)]) == 1
    assert "other Inception weights" in capsys.readouterr().err


FLAGS = {
    "no file": (["--shard", "1/2"], "-o part.safetensors"),
    "no shard": (["-o", "part.safetensors"], "--shard NUMBER/ALL"),
    "beyond": (["--shard", "3/2", "-o", "part.safetensors"], "the first of eight is 1/8"),
    "words": (["--shard", "one", "-o", "part.safetensors"], "the first of eight is 1/8"),
    "both": (["--shard", "1/2", "-o", "part.safetensors", "--num-processes", "2"], "leave out"),
    "look": (["--attention", "--shard", "1/2", "-o", "part.safetensors"], "not shared out"),
    "metric": (["--merge", "part.safetensors", "--fid"], "the parts say"),
    "three": (["a", "b", "c"], "third target"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_that_do_not_go_together_are_one_line(name, capsys):
    arguments, part = FLAGS[name]
    assert run(["--quiet", "eval", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert part in lines[0]


def test_two_processes_score_as_one_does(tiny_run, tmp_path, capsys):
    options = ["--num", "20", "--precision", "fp32", "--json", "--device", "cpu"]
    alone = ask(capsys, tiny_run, *options)
    together = subprocess.run(
        [sys.executable, "-m", "gtool", "eval", str(tiny_run), "--num-processes", "2", *options],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(gtool.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert together.returncode == 0, together.stderr
    record = json.loads(together.stdout)
    for name, found in alone["metrics"].items():
        assert record["metrics"][name]["value"] == pytest.approx(found["value"], rel=1e-6)
    assert len((tiny_run / "eval.jsonl").read_text().splitlines()) == 2
