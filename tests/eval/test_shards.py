"""One score from several processes, or from machines that share nothing: equal to that of one process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import gtool
from gtool.cli import run
from gtool.errors import GToolError
from gtool.eval.image_sets import Wanted, open_stored
from gtool.eval.options import Request
from gtool.eval.processes import share_reference
from gtool.eval.scores import Scorer
from gtool.eval.shards import Shard
from gtool.io.checkpoint import cache_dir, load_weights, save_weights
from gtool.metrics.features.weights import INCEPTION
from tests import inception_standin, pictures, small_inception
from tests.eval.test_eval_hygiene import save

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


def test_parts_of_folders_by_another_seed_are_said_to_be_so(tmp_path, capsys):
    fake = save(tmp_path / "fake", pictures.draw(8, seed=1))
    for seed in (0, 1):
        options = [
            "--rfd",
            "--num",
            4,
            "--seed",
            seed,
            "--shard",
            f"{seed + 1}/2",
            "-o",
            f"{seed}.safetensors",
        ]
        ask(capsys, fake, fake, *options)
    assert run(["eval", "--merge", "0.safetensors", "1.safetensors"]) == 1
    assert "another seed" in capsys.readouterr().err


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
    for option in (["--num", "9"], ["--seed", "5"], ["--mode", "legacy_pytorch"], ["--resolution", "64"]):
        assert run(["eval", "--merge", *good, *option]) == 2
        assert f"{option[0]}: the parts say" in capsys.readouterr().err
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


# Several processes.


class Group:
    """Processes as threads: what one shares or gathers reaches the others when all have come."""

    def __init__(self, size):
        self.members = [Member(self, rank) for rank in range(size)]
        self.barrier = threading.Barrier(size, timeout=60)
        self.values = [None] * size

    def swap(self, rank, value):
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found

    def run(self, work):
        """Call work(member) in every thread; return what each has returned or raised."""
        answers = [None] * len(self.members)

        def one(member):
            try:
                answers[member.rank] = work(member)
            except GToolError as failed:
                answers[member.rank] = failed

        threads = [threading.Thread(target=one, args=(member,)) for member in self.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
        return answers


class Member:
    def __init__(self, group, rank):
        self.group, self.rank, self.is_main = group, rank, rank == 0

    @property
    def world_size(self):
        return len(self.group.members)

    def share(self, value):
        return self.group.swap(self.rank, value)[0]

    def gather(self, value):
        return self.group.swap(self.rank, value)


class Through:
    """An extractor with another forward."""

    def __init__(self, extractor, forward):
        self.extractor, self.forward = extractor, forward

    def __getattr__(self, name):
        return getattr(self.extractor, name)

    def __call__(self, images):
        return self.forward(images)


def reference_by(size, *metrics):
    """Return the reference's features as `size` processes take them, and how many images each took."""
    request = Request(metrics=metrics, batch_size=4)
    real = open_stored(Wanted("real", "train", None), None, 0)
    taken = [0] * size

    def work(member):
        scorer = Scorer(request, real, 8, torch.device("cpu"))
        (space,) = scorer.comparing
        plain = space.extractor

        def counted(images):
            taken[member.rank] += len(images)
            return plain(images)

        space.extractor = Through(plain, counted)
        share_reference(scorer, member)
        return space.reference_features(real, 4) if member.is_main else None

    return Group(size).run(work)[0], taken


@pytest.mark.parametrize("rows_at_once", [16, 2048], ids=["moments", "rows"])
def test_processes_share_the_reference_as_one_would_take_it(rows_at_once, monkeypatch):
    monkeypatch.setattr("gtool.metrics.fid.ROWS_AT_ONCE", rows_at_once)
    save(Path("real"), pictures.draw(70, seed=2))
    (whole, _), cached = reference_by(1, "fid", "kid"), list(cache_dir().glob("stats/*"))
    for file in cached:
        file.unlink()
    shared, taken = reference_by(3, "fid", "kid")
    assert taken == [20, 24, 26]  # whole batches
    assert [file.name for file in cached] == [file.name for file in cache_dir().glob("stats/*")]
    torch.testing.assert_close(shared.rows, whole.rows, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(shared.gaussian.mean, whole.gaussian.mean, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(shared.gaussian.covariance, whole.gaussian.covariance, rtol=1e-6, atol=1e-9)
    again, taken = reference_by(3, "fid", "kid")
    assert taken == [0, 0, 0]
    assert torch.equal(again.rows, shared.rows)


def test_more_processes_than_real_images_leave_some_idle():
    save(Path("real"), pictures.draw(2, seed=2))
    found, taken = reference_by(3, "fid")
    assert (found.count, sorted(taken)) == (2, [0, 1, 1])


def test_processes_wait_while_another_command_makes_the_reference(monkeypatch):
    """Nobody waits in one exchange for longer than the patience of the main process."""
    monkeypatch.setattr("gtool.metrics.reference.PATIENCE", 0.05)
    save(Path("real"), pictures.draw(9, seed=2))
    reference_by(1, "fid")
    (file,) = cache_dir().glob("stats/*.safetensors")
    made = file.read_bytes()
    file.unlink()
    waits = []
    monkeypatch.setattr(Member, "share", lambda self, value: waits.append(value) or swap(self, value))

    def swap(member, value):
        return member.group.swap(member.rank, value)[0]

    def other_command():
        with FileLock(file.with_suffix(".lock")):
            held.set()
            until.wait(30)
            file.write_bytes(made)

    held, until = threading.Event(), threading.Event()
    other = threading.Thread(target=other_command)
    other.start()
    held.wait()
    threading.Timer(0.5, until.set).start()
    _, taken = reference_by(2, "fid")
    other.join()
    assert taken == [0, 0]
    assert waits.count("wait") > 2
    assert waits.count("done") == 1


def test_a_real_image_that_one_process_cannot_use_ends_all(monkeypatch):
    save(Path("real"), pictures.draw(8, seed=2))
    request, real = (
        Request(metrics=("fid",), batch_size=2),
        open_stored(Wanted("real", "train", None), None, 0),
    )

    def work(member):
        scorer = Scorer(request, real, 8, torch.device("cpu"))
        if member.rank == 1:
            plain = scorer.inception.extractor
            scorer.inception.extractor = Through(
                plain, lambda images: torch.full((len(images), 2048), torch.nan)
            )
            monkeypatch.setattr("gtool.metrics.fid.ROWS_AT_ONCE", 2)
        share_reference(scorer, member)

    answers = Group(2).run(work)
    assert all("not finite" in str(answer) for answer in answers)
    assert not list(cache_dir().glob("stats/*.safetensors"))


def test_two_processes_score_as_one_does(tiny_run, tmp_path, capsys, monkeypatch):
    """With a network of Inception's shape; the second cache is empty, so the reference is taken again."""
    path, _ = inception_standin.make(tmp_path)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": str(Path(gtool.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    environment |= {INCEPTION.variable: str(path), "GTOOL_CACHE": str(tmp_path / "cache")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = ["--fid", "--kid", "--rfd", "--num", "6", "--precision", "fp32", "--batch-size", "3"]
    options += ["--json", "--device", "cpu", "--num-processes"]
    alone = ask(capsys, tiny_run, *options[:-3])
    shutil.rmtree(tmp_path / "cache" / "stats")
    together = subprocess.run(
        [sys.executable, "-m", "gtool", "eval", str(tiny_run), *options, "2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert together.returncode == 0, together.stderr
    record = json.loads(together.stdout)
    assert record["metrics"].keys() == alone["metrics"].keys()
    for name, found in alone["metrics"].items():
        assert record["metrics"][name]["value"] == pytest.approx(found["value"], rel=1e-6)
    assert len(list((tmp_path / "cache" / "stats").glob("*.safetensors"))) == 1
    assert len((tiny_run / "eval.jsonl").read_text().splitlines()) == 2
