"""One score from several processes: equal to that of one process."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gtool
from gtool.errors import GToolError
from gtool.eval.image_sets import ImageSpec, open_stored
from gtool.eval.scores import open_networks, reference_of, share_of
from gtool.io.files import cache_dir
from gtool.metrics.features.weights import INCEPTION
from tests.eval.commands import ask, save
from tests.helpers import pictures, small_inception
from tests.helpers.forked import Process


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    return small_inception.install(tmp_path, monkeypatch)


def test_shares_are_neighbours_that_leave_nothing_out():
    for count, size, batch_size in ((10, 3, 1), (100, 7, 16), (16, 16, 1), (2, 3, 4), (100, 3, 32)):
        shares = [share_of(count, member, batch_size) for member in Group(size).members]
        assert [start for start, _ in shares] == [0, *(stop for _, stop in shares[:-1])]
        assert shares[-1][1] == count
        assert count < size * batch_size or all(start % batch_size == 0 for start, _ in shares)


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

    def follow_load(self):
        """One of several processes keeps its threads."""


class Counted:
    """An extractor that counts the images it is given, or makes other features of them."""

    def __init__(self, extractor, make=None):
        self.extractor, self.make, self.count = extractor, make, 0

    def __getattr__(self, name):
        return getattr(self.extractor, name)

    def __call__(self, images):
        self.count += len(images)
        return (self.make or self.extractor)(images)


def open_network(make=None):
    network = open_networks(["fid"], torch.device("cpu"))["inception"]
    return replace(network, extractor=Counted(network.extractor, make))


def reference_by(size, *, need_rows=False):
    """Return the reference's features as `size` processes take them, and how many images each took."""
    real = open_stored(ImageSpec("real"), None, 0)
    taken = [0] * size

    def work(member):
        network = open_network()
        found = reference_of(real, network, member, need_rows=need_rows, batch_size=4)
        taken[member.rank] = network.extractor.count
        return found

    return Group(size).run(work)[0], taken


@pytest.mark.parametrize("rows_at_once", [16, 2048], ids=["moments", "rows"])
def test_processes_share_the_reference_as_one_would_take_it(rows_at_once, monkeypatch):
    monkeypatch.setattr("gtool.metrics.features.collector.ROWS_AT_ONCE", rows_at_once)
    save(Path("real"), pictures.draw(70, seed=2))
    (whole, _), cached = reference_by(1, need_rows=True), list(cache_dir().glob("stats/*"))
    for file in cached:
        file.unlink()
    shared, taken = reference_by(3, need_rows=True)
    assert taken == [20, 24, 26]  # whole batches
    assert [file.name for file in cached] == [file.name for file in cache_dir().glob("stats/*")]
    torch.testing.assert_close(shared.rows, whole.rows, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(shared.gaussian.mean, whole.gaussian.mean, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(shared.gaussian.covariance, whole.gaussian.covariance, rtol=1e-6, atol=1e-9)
    again, taken = reference_by(3, need_rows=True)
    assert taken == [0, 0, 0]
    assert torch.equal(again.rows, shared.rows)


def test_more_processes_than_real_images_leave_some_idle():
    save(Path("real"), pictures.draw(2, seed=2))
    found, taken = reference_by(3)
    assert (found.count, sorted(taken)) == (2, [0, 1, 1])


def test_a_real_image_that_one_process_cannot_use_ends_all(monkeypatch):
    save(Path("real"), pictures.draw(8, seed=2))
    real = open_stored(ImageSpec("real"), None, 0)
    monkeypatch.setattr("gtool.metrics.features.collector.ROWS_AT_ONCE", 2)

    def work(member):
        broken = (lambda images: torch.full((len(images), 2048), torch.nan)) if member.rank == 1 else None
        return reference_of(real, open_network(broken), member, need_rows=False, batch_size=2)

    answers = Group(2).run(work)
    assert all("not finite" in str(answer) for answer in answers)
    assert not list(cache_dir().glob("stats/*.safetensors"))


def test_two_processes_score_as_one_does(tiny_run, inception_files, tmp_path, capsys, monkeypatch):
    """With a network of Inception's shape; the second cache is empty, so the reference is taken again."""
    path, _ = inception_files
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
    together = Process(["eval", str(tiny_run), *options, "2"])
    out, errors = together.communicate(timeout=300)
    assert together.returncode == 0, errors
    record = json.loads(out)
    assert record["metrics"].keys() == alone["metrics"].keys()
    for name, found in alone["metrics"].items():
        assert record["metrics"][name]["value"] == pytest.approx(found["value"], rel=1e-6)
    assert len(list((tmp_path / "cache" / "stats").glob("*.safetensors"))) == 1
    assert len((tiny_run / "eval.jsonl").read_text().splitlines()) == 2


def test_what_all_processes_would_say_is_said_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(gtool.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, seed in (("one", 0), ("two", 1)):
        save(tmp_path / name, pictures.draw(8, seed=seed))
    together = Process(["eval", "one", "two", "--device", "cpu", "--num-processes", "2"])
    _, errors = together.communicate(timeout=300)
    assert together.returncode == 0, errors
    assert errors.count("no metric was named") == 1
