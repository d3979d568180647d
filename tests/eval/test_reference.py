"""What images are compared with: statistics as files and by name, and features in the cache that survive accidents."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gtool
from gtool.cli import run
from gtool.errors import DataError
from gtool.io.files import cache_dir
from gtool.io.weights import load_weights, save_weights
from gtool.metrics.features.collector import FeatureCollector
from gtool.metrics.features.inception import InceptionExtractor
from gtool.metrics.reference import reference_features
from gtool.metrics.statistics import find_published, read_statistics
from tests.eval.commands import answer, refuse, save
from tests.helpers import pictures, small_inception


@pytest.fixture
def weights(tmp_path, monkeypatch):
    return small_inception.install(tmp_path, monkeypatch)


@pytest.fixture
def folders(tmp_path):
    return [str(save(tmp_path / name, pictures.draw(8, seed))) for name, seed in (("fake", 1), ("real", 2))]


@pytest.fixture
def quick(monkeypatch):
    """Where only what is said of a score matters: the distance of 2,048 dimensions takes seconds."""
    monkeypatch.setattr("gtool.metrics.fid.fid", lambda *_: {"fid": 1.0})


# Statistics in a file.


def test_exported_statistics_score_as_the_images_do(weights, folders, capsys):
    fake, real = folders
    images, _ = answer(capsys, fake, real, "--fid", "--export-reference", "stats.npz")
    with np.load("stats.npz", allow_pickle=False) as written:  # as clean-fid and pytorch-fid read it
        assert (written["mu"].shape, written["sigma"].shape) == ((2048,), (2048, 2048))
    record, _ = answer(capsys, fake, "--reference", "stats.npz", "--fid")
    found, expected = (r["metrics"]["fid"] for r in (record, images))
    assert found["value"] == pytest.approx(expected["value"], rel=1e-5)
    assert found["protocol"] == expected["protocol"]
    assert found["reference"] == expected["reference"]


def test_a_run_is_scored_against_statistics(weights, quick, folders, tiny_run, capsys):
    answer(capsys, *folders, "--fid", "--export-reference", "stats.npz")
    record, _ = answer(capsys, tiny_run, "--reference", "stats.npz", "--fid", "--num", 12)
    assert record["metrics"]["fid"]["protocol"].endswith("/n12/ref-real-n8")


def test_statistics_of_others_are_named_by_their_content_and_a_mode_is_assumed_aloud(
    weights, quick, folders, capsys
):
    np.savez("mine.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    record, said = answer(capsys, folders[0], "--reference", "mine.npz", "--fid")
    found = record["metrics"]["fid"]
    assert "/n8/ref-mine@" in found["protocol"]
    assert found["num_real"] == 0
    assert "--mode clean is assumed" in said


def spoil(change):
    arrays = {"mu": np.zeros(2048), "sigma": np.eye(2048)} | change
    np.savez("stats.npz", **{key: value for key, value in arrays.items() if value is not None})


BAD = {
    "shape": ({"mu": np.zeros(768)}, "`mu` is float64 (768,)"),
    "not finite": ({"sigma": np.full((2048, 2048), np.nan)}, "not finite"),
    "missing": ({"sigma": None}, "has no `sigma`"),
    "lopsided": ({"sigma": np.triu(np.ones((2048, 2048)))}, "no covariance"),
    "pickled": ({"mu": np.array([{"a": 1}], object)}, "not a readable .npz"),
    "integers": ({"mu": np.zeros(2048, np.int64)}, "`mu` is int64"),
    "of minus five images": ({"count": np.array(-5)}, "no number of images"),
    "of many images": ({"count": np.array("many")}, "no number of images"),
    "too large": ({"mu": np.zeros((2048, 2100))}, "larger than"),
}


def test_wrong_statistics_are_one_line(folders, capsys):
    for case, (change, part) in BAD.items():
        spoil(change)
        status, said = refuse(capsys, folders[0], "--reference", "stats.npz", "--fid")
        assert (status, part in said) == (1, True), f"{case}: {said}"
    Path("stats.npz").write_bytes(b"PK\3\4 cut short")
    assert "not a readable .npz" in refuse(capsys, folders[0], "--reference", "stats.npz", "--fid")[1]
    assert "no such file" in refuse(capsys, folders[0], "--reference", "none.npz", "--fid")[1]


def test_a_name_of_several_lines_is_no_part_of_a_protocol(weights, quick, folders, capsys):
    spoil({"name": np.array("cifar10\n::error::")})
    record, _ = answer(capsys, folders[0], "--reference", "stats.npz", "--fid")
    assert "/ref-stats@" in record["metrics"]["fid"]["protocol"]


def test_statistics_of_another_mode_or_network_are_refused(weights, quick, folders, capsys, tmp_path):
    answer(capsys, *folders, "--fid", "--export-reference", "stats.npz")
    options = (folders[0], "--reference", "stats.npz", "--fid")
    status, said = refuse(capsys, *options, "--mode", "legacy_pytorch")
    assert (status, "made by --mode clean" in said) == (2, True)
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    assert "made with other Inception weights" in refuse(capsys, *options, "--weights", other)[1]
    spoil({})
    Path("stats.npz").rename("cifar10_legacy_tensorflow_train_32.npz")
    options = (folders[0], "--reference", "cifar10_legacy_tensorflow_train_32.npz", "--fid")
    assert "made by --mode legacy_tensorflow" in refuse(capsys, *options)[1]


@pytest.mark.parametrize("metric", ["--kid", "--pr", "--density", "--rfd", "--swd"])
def test_only_fid_can_do_with_statistics(metric, folders, capsys):
    spoil({})
    status, said = refuse(capsys, folders[0], "--reference", "stats.npz", metric)
    assert status == 2
    assert f"{metric}: needs the images" in said


def test_an_export_needs_features_and_an_npz(folders, capsys):
    assert refuse(capsys, *folders, "--rfd", "--export-reference", "a.npz")[0] == 2
    assert refuse(capsys, *folders, "--fid", "--export-reference", "a.txt")[0] == 2


def test_statistics_are_made_without_a_target_and_later_scores_start_at_once(
    weights, quick, tiny_run, tmp_path, capsys, monkeypatch
):
    save(tmp_path / "real", pictures.draw(8, seed=2))
    alone = ("--reference", "real", "--export-reference", "stats.npz", "--resolution", 16)
    made, said = answer(capsys, *alone)
    assert "statistics of real@16px, 8 images: stats.npz" in said
    assert (made["statistics"], made["count"], made["name"]) == ("stats.npz", 8, "real@16px")
    assert not (tiny_run / "eval.jsonl").exists()
    seen = []
    extract = InceptionExtractor.__call__
    monkeypatch.setattr(
        InceptionExtractor, "__call__", lambda self, images: seen.append(len(images)) or extract(self, images)
    )
    scored, _ = answer(capsys, tiny_run, "--reference", "real", "--fid", "--num", 12)
    assert sum(seen) == 12  # of the run; the reference's are in the cache
    assert scored["reference"]["fingerprint"] == made["fingerprint"]
    again, _ = answer(capsys, tiny_run, "--reference", "stats.npz", "--fid", "--num", 12)
    assert again["reference"]["fingerprint"] == made["fingerprint"]
    assert run(["eval", *map(str, alone), "--num", "5", "--seed", "1", "--mode", "legacy_pytorch"]) == 0
    assert capsys.readouterr().out.strip() == "stats.npz"
    found = read_statistics(Path("stats.npz"))
    assert (found.features.count, found.mode) == (5, "legacy_pytorch")


def test_statistics_alone_need_images_and_a_place(weights, folders, capsys):
    alone = ("--reference", folders[1], "--export-reference")
    assert refuse(capsys, *alone, "a.txt")[0] == 2
    Path("folder.npz").mkdir()
    assert "is a folder" in refuse(capsys, *alone, "folder.npz")[1]
    assert refuse(capsys, *alone, "a.npz", "--mode", "cleen")[0] == 2
    assert refuse(capsys, *alone, "a.npz", "-o", "a.json")[0] == 2
    assert refuse(capsys, "--reference", "none/", "--export-reference", "a.npz")[0] == 1
    assert refuse(capsys, "--export-reference", "a.npz")[0] == 2
    assert refuse(capsys, "--reference", "clean-fid:cifar10-32-train", "--export-reference", "a.npz")[0] == 2
    assert not Path("a.npz").exists()


# Nothing to compare with.


def strange_weights(tiny_run):
    """Weights of a training on something that is not here."""
    path = tiny_run / "weights-000012.safetensors"
    stored = load_weights(path)
    meta = {key: value for key, value in stored.meta.items() if key != "format"}
    meta["recipe"]["data"]["dataset"] = "./nowhere"
    save_weights(path, stored.tensors, meta)
    return path


def test_is_asks_for_no_reference_and_its_record_has_none(weights, tmp_path, tiny_run, capsys):
    fake = save(tmp_path / "fake", pictures.draw(12, seed=1))
    record, _ = answer(capsys, fake, "--is")
    assert (record["reference"], list(record["images"])) == (None, ["fake"])
    assert record["metrics"]["is"]["reference"] is None
    beside, said = answer(capsys, fake, "--is", "--reference", fake)
    assert (beside["reference"], "has no effect" in said) == (None, True)
    assert beside["metrics"] == record["metrics"]
    made, _ = answer(capsys, strange_weights(tiny_run), "--is", "--num", 12)
    assert made["metrics"]["is"]["protocol"].endswith("/n12")
    status, said = refuse(capsys, fake, "--is", "--kid")
    assert (status, "a folder is compared with another" in said) == (2, True)
    assert "nowhere" in refuse(capsys, tiny_run, "--is", "--kid", "--num", 12)[1]


def test_results_gates_and_baselines_do_without_a_reference(weights, tmp_path, capsys):
    fake = save(tmp_path / "fake", pictures.draw(12, seed=1))
    files = [f"result{suffix}" for suffix in (".json", ".xml", ".md", ".html")]
    outputs = [word for file in files for word in ("-o", file)]
    assert run(["eval", str(fake), "--min", "is=1", *outputs]) == 0
    assert "against" not in capsys.readouterr().out
    for file in files:
        text = Path(file).read_text(encoding="utf-8")
        assert "is-splits10/clean" in text, file
        assert "None" not in text, file
    again = ["--baseline", "result.json", "--max-regress", "is=1%"]
    assert run(["eval", str(fake), *again]) == 0
    assert run(["eval", str(fake), "--min", "is=1000"]) == 4


def test_names_of_published_statistics_are_known_offline(folders, capsys):
    options = (folders[0], "--fid", "--reference")
    status, said = refuse(capsys, *options, "clean-fid:cifar10-32-trian")
    assert (status, "did you mean `clean-fid:cifar10-32-train`" in said) == (2, True)
    full = "clean-fid:lsun_church-256-trainfull"
    status, said = refuse(capsys, *options, full, "--mode", "legacy_pytorch")
    assert (status, "--mode clean only" in said) == (2, True)
    status, said = refuse(capsys, *options, "clean-fid:ffhq-1024-trainval70k")
    assert (status, "offline" in said, "ffhq_clean_trainval70k_1024.npz" in said) == (1, True, True)


def test_published_statistics_are_used_from_the_cache_and_belong_to_published_weights(
    weights, quick, folders, capsys, monkeypatch
):
    (cache_dir() / "published").mkdir(parents=True)
    spoil({})
    Path("stats.npz").rename(cache_dir() / "published" / "cifar10_clean_train_32.npz")
    options = (folders[0], "--fid", "--reference", "clean-fid:cifar10-32-train")
    assert "other Inception weights" in refuse(capsys, *options)[1]
    monkeypatch.setattr("gtool.metrics.features.weights.WeightsFile.is_published", True)
    record, _ = answer(capsys, *options)
    assert record["metrics"]["fid"]["protocol"] == (
        "fid/clean/inception-2015/n8/ref-clean-fid:cifar10-32-train-n50000"
    )


def test_a_download_is_checked_before_it_gets_its_name(monkeypatch):
    from gtool.errors import NetworkError
    from gtool.io import hub
    from gtool.metrics.features import weights

    spoil({})
    good = Path("stats.npz").read_bytes()
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    monkeypatch.setattr(hub, "is_reachable", lambda *_: True)

    def publish(content):
        monkeypatch.setattr(weights, "urlopen", lambda url, timeout: io.BytesIO(content))

    publish(good[:5000])
    with pytest.raises(NetworkError, match="did not give the published file"):
        find_published("clean-fid:cifar10-32-test", "legacy_pytorch")
    folder = cache_dir() / "published"
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []
    publish(good)
    found = find_published("clean-fid:cifar10-32-test", "legacy_pytorch")
    assert found.name == "cifar10_legacy_pytorch_test_32.npz"
    monkeypatch.setattr(weights, "urlopen", pytest.fail)
    assert find_published("clean-fid:cifar10-32-test", "legacy_pytorch") == found


# The cache.

ACCIDENTS = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from gtool.io.files import cache_dir
from gtool.io.weights import load_weights, save_weights
from gtool.metrics.features.collector import FeatureCollector
from gtool.metrics.reference import reference_features

DATA = torch.randn(2100, 2048, generator=torch.Generator().manual_seed(0))

def work(source, seconds):
    def build():
        with open(f"built-{source}", "a") as out:
            out.write("x")
        time.sleep(seconds)
        collector = FeatureCollector(keep_rows=True)
        collector.add(DATA)
        return collector.features()

    found = reference_features({"source": source}, build, need_rows=True)
    return [found.count, float(found.gaussian.mean.sum())]

def start(source, seconds, answer="answer"):
    child = os.fork()
    if not child:
        Path(answer).write_text(json.dumps(work(source, seconds)))
        os._exit(0)
    return child

pair = [start("a", 1, f"answer-{number}") for number in range(2)]
together = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in pair]
answers = [json.loads(Path(f"answer-{number}").read_text()) for number in range(2)]
for source, pause in (("b", 0.0), ("c", 0.05), ("d", 0.1), ("e", 0.2), ("f", 0.4)):
    child = start(source, 60 if source == "b" else 0)
    while not Path(f"built-{source}").exists():
        time.sleep(0.005)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
after = [work(source, 0) for source in "bcdef"]
left = [path.name for path in (cache_dir() / "stats").iterdir() if path.suffix != ".lock"]
print(json.dumps({"together": together, "answers": answers, "built": Path("built-a").read_text(),
                  "after": after, "left": left}))
"""


def test_two_at_once_extract_once_and_one_that_is_killed_leaves_nothing_broken():
    """Killed while it extracts, and at moments of writing, which takes some hundredths of a second."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gtool.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ACCIDENTS], capture_output=True, env=environment, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["together"] == [0, 0]
    assert found["answers"][0] == found["answers"][1]
    assert found["built"] == "x"
    assert found["after"] == [found["answers"][0]] * 5
    assert len(found["left"]) == 6  # what the killed ones had begun is gone


def test_a_complete_cache_may_be_read_only(monkeypatch):
    """As the image of a container is: no lock can be taken there."""

    def build():
        collector = FeatureCollector()
        collector.add(torch.ones(3, 2048))
        return collector.features()

    def acquire(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    first = reference_features({"source": "a"}, build)
    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    again = reference_features({"source": "a"}, lambda: pytest.fail("was made again"))
    assert torch.equal(again.rows, first.rows)
    with pytest.raises(DataError, match="GTOOL_CACHE"):
        reference_features({"source": "b"}, build)


@pytest.mark.parametrize("damage", ["cut short", "other shapes", "not finite"])
def test_a_damaged_cache_file_is_made_again(damage):
    from safetensors.torch import save_file

    def build(value=0.0):
        collector = FeatureCollector()
        collector.add(torch.full((5, 2048), value))
        return collector.features()

    reference_features({"source": "a"}, build)
    (path,) = (cache_dir() / "stats").glob("*.safetensors")
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        rows = torch.zeros(4, 768) if damage == "other shapes" else torch.full((5, 2048), float("nan"))
        save_file({"rows": rows, "count": torch.tensor(5)}, path, metadata={"key": ""})
    again = reference_features({"source": "a"}, lambda: build(1.0))
    assert again.rows is not None
    assert float(again.rows.min()) == 1.0


def test_statistics_read_back_are_those_that_were_written(tmp_path):
    from gtool.metrics.statistics import write_statistics

    collector = FeatureCollector()
    collector.add(torch.randn(50, 2048))
    features = collector.features()
    write_statistics(tmp_path / "s.npz", features, {"count": 50, "mode": "clean", "weights": None})
    found = read_statistics(tmp_path / "s.npz")
    torch.testing.assert_close(found.features.gaussian.covariance, features.gaussian.covariance)
    assert (found.features.count, found.mode, found.weights) == (50, "clean", None)
