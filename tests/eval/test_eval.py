"""`gtool eval` from the command line: runs, folders, what is printed, what is kept, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from gtool.cli import run
from gtool.io.files import digest_of
from gtool.metrics.features.weights import INCEPTION
from tests.eval.commands import answer, ask, refuse, save
from tests.helpers import pictures
from tests.helpers.tiny import tiny_recipe


@pytest.fixture
def folders(tmp_path):
    """Two small sets of the same kind."""
    return [str(save(tmp_path / name, pictures.draw(24, seed))) for name, seed in (("fake", 1), ("real", 2))]


@pytest.fixture
def run_folder(tmp_path):
    """A run that has saved weights of an untrained tiny generator once."""
    from gtool.config.recipe import to_toml
    from gtool.io.weights import save_weights
    from gtool.models.generate import weights_meta
    from gtool.models.registry import config_class, network_module

    recipe = tiny_recipe()
    config = config_class("transgan").model_validate(recipe.model)
    folder = tmp_path / "runs" / "transgan-scenes-000"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    torch.manual_seed(0)
    generator = network_module("transgan").Generator(config)
    save_weights(
        folder / "weights-000001.safetensors", generator.state_dict(), weights_meta(recipe, config, 1000)
    )
    return folder


def test_two_folders_are_scored_without_weights(folders, capsys):
    record = ask(capsys, *folders)
    assert list(record["metrics"]) == ["rfd", "swd_32", "swd_16"]
    rfd = record["metrics"]["rfd"]
    assert rfd["protocol"] == "rfd-v1/n12/ref-real-n12"
    assert (rfd["num_fake"], rfd["num_real"]) == (12, 12)
    assert rfd["ratio"] == pytest.approx(rfd["value"] / rfd["floor"])
    assert record["metrics"]["swd_16"]["protocol"] == "swd-v1/16px/n12/ref-real-n12"


def test_images_here_are_scored_where_a_data_set_has_their_name(folders, tmp_path, monkeypatch, capsys):
    save(tmp_path / "data", [])
    save(tmp_path / "data" / "fake", pictures.draw(5, 3))
    monkeypatch.setenv("GTOOL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for name in ("fake", "fake/"):
        assert ask(capsys, name, "real/", "--rfd")["images"]["fake"]["formats"] == {"PNG": 24}


def test_the_table_names_values_floors_and_protocols(folders, capsys):
    assert run(["eval", *folders, "--rfd"]) == 0
    shown = capsys.readouterr()
    assert "fake against real" in shown.out.replace(str(folders[0]), "fake")
    assert "rfd-v1/n12/ref-real-n12" in shown.out
    assert "swd" not in shown.out
    assert "real v real" in shown.out


def test_unnamed_metrics_are_the_two_that_need_no_weights_and_it_says_so(folders, capsys):
    assert run(["eval", *folders]) == 0
    assert "rfd and swd" in capsys.readouterr().err


def test_num_takes_a_seeded_part_of_both_folders(folders, capsys):
    first, again = (ask(capsys, *folders, "--rfd", "--num", 10) for _ in range(2))
    other = ask(capsys, *folders, "--rfd", "--num", 10, "--seed", 1)
    assert first["metrics"] == again["metrics"] != other["metrics"]
    assert first["metrics"]["rfd"]["num_fake"] == 10


def test_the_newest_run_is_scored_against_its_own_data(run_folder, capsys):
    record = ask(capsys, "--num", 20)
    assert record["target"].endswith("weights-000001.safetensors")
    assert record["metrics"]["rfd"]["protocol"] == "rfd-v1/n20/ref-scenes-train-n20"
    assert record["nimg"] == 1000
    kept = [json.loads(line) for line in (run_folder / "eval.jsonl").read_text().splitlines()]
    assert kept == [record]


def test_scores_of_a_run_do_not_depend_on_the_batch_size(run_folder, capsys):
    scores = [
        ask(capsys, run_folder, "--num", 12, "--batch-size", size, "--precision", "fp32")["metrics"]
        for size in (5, 12)
    ]
    assert scores[0] == scores[1]


def test_a_run_can_be_scored_against_a_folder_at_its_own_resolution(run_folder, folders, capsys):
    record = ask(capsys, run_folder, "--reference", folders[1], "--num", 8, "--swd")
    assert list(record["metrics"]) == ["swd_16"]
    assert record["reference"]["name"] == "real"


def test_images_of_several_sizes_need_a_resolution(folders, tmp_path, capsys):
    mixed = str(save(tmp_path / "mixed", pictures.draw(8, seed=3)))
    Image.fromarray(pictures.draw(1, seed=4, side=40)[0].transpose(1, 2, 0)).save(
        tmp_path / "mixed" / "large.png"
    )
    assert run(["eval", mixed, folders[1], "--rfd"]) == 1
    assert "--resolution" in capsys.readouterr().err
    record = ask(capsys, mixed, folders[1], "--rfd", "--resolution", 32)
    assert record["metrics"]["rfd"]["num_fake"] == 9
    assert (
        record["metrics"]["rfd"]["protocol"] == "rfd-v1/n9/ref-real@32px-n9"
    )  # of 9 and 24, 12 and 12 at most
    fitted = ask(capsys, mixed, folders[1], "--rfd", "--resolution", 32, "--fit")
    assert fitted["metrics"]["rfd"]["protocol"] == "rfd-v1/n9/ref-real@32px@fit-n9"


@pytest.fixture
def inception(inception_files):
    """A file of Inception's layout with random weights."""
    return inception_files[0]


def test_metrics_of_inception_name_their_protocol_and_their_limits(folders, capsys, monkeypatch, inception):
    monkeypatch.setenv(INCEPTION.variable, str(inception))
    asked = ["--fid", "--kid", "--is", "--pr", "--density", "--rfd", "--num", "12", "--seed", "3"]
    assert run(["eval", *folders, *asked, "--json"]) == 0
    shown = capsys.readouterr()
    metrics = json.loads(shown.out)["metrics"]
    assert list(metrics) == ["fid", "kid", "is", "precision", "recall", "density", "coverage", "rfd"]
    network = f"inception-{digest_of(inception)[:8]}"
    assert metrics["fid"]["protocol"] == f"fid/clean/{network}/n12/ref-real-n12"
    assert metrics["recall"]["protocol"] == f"recall-k3/clean/{network}/n12/ref-real-n12"
    assert metrics["coverage"]["protocol"] == f"coverage-k5/clean/{network}/n12/ref-real-n12"
    assert metrics["is"]["protocol"] == f"is-splits10/clean/{network}/n12"
    assert metrics["fid"]["comparable"] is False
    assert metrics["fid"]["value"] > 0
    assert metrics["kid"]["deviation"] is None  # 12 of 12 images: every subset is the same
    assert metrics["is"]["value"] >= 1
    assert "not comparable with published numbers" in shown.err


def test_every_number_says_what_it_was_made_with(folders, capsys, monkeypatch, inception):
    monkeypatch.setenv(INCEPTION.variable, str(inception))
    record = ask(capsys, *folders, "--fid", "--swd", "--num", 4, "--seed", 3)
    fingerprint = record["reference"]["fingerprint"]
    common = {"dtype": "fp32", "reference": fingerprint, "seed": 3, "num_fake": 4}
    for name, weights in (("fid", digest_of(inception)), ("swd_16", None)):
        found = record["metrics"][name]
        assert found.items() >= (common | {"weights": weights}).items()


def test_a_preview_is_marked_and_kept_apart(folders, capsys, monkeypatch, inception):
    monkeypatch.setenv(INCEPTION.variable, str(inception))
    plain = ask(capsys, *folders, "--fid", "--num", 4)["metrics"]["fid"]
    quick = ask(capsys, *folders, "--fid", "--num", 4, "--preview")["metrics"]["fid"]
    assert quick["dtype"] == "bf16"
    assert "/bf16/n4/" in quick["protocol"]
    assert quick["comparable"] is False
    assert quick["value"] == pytest.approx(plain["value"], rel=0.1)
    assert quick["value"] != plain["value"]


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_preview_where_bf16_is_slow_says_so(is_fast, folders, capsys, monkeypatch, inception):
    monkeypatch.setenv(INCEPTION.variable, str(inception))
    monkeypatch.setattr("gtool.eval.scores.has_fast_bf16", lambda _: is_fast)
    assert run(["eval", *map(str, folders), "--fid", "--num", "4", "--preview", "--json"]) == 0
    assert ("bf16 is not fast on this device" in capsys.readouterr().err) != is_fast


WITHOUT_EFFECT = {
    "mode": (["--rfd", "--mode", "legacy_pytorch"], "--mode would have no effect"),
    "weights": (["--rfd", "--weights", "{fake}/0000.png"], "--weights would have no effect"),
    "clip weights": (["--rfd", "--clip-weights", "{fake}/0000.png"], "--clip-weights would have no effect"),
    "preview": (["--swd", "--preview"], "--preview would have no effect"),
    "preview of statistics": (["--fid", "--preview", "--export-reference", "a.npz"], "--preview would"),
    "number of pairs": (["--paired", "--num", "4"], "--num would have no effect: pairs are all compared"),
    "seed of pairs": (["--paired", "--seed", "4"], "--seed would have no effect"),
    "split of pairs": (["--paired", "--split", "test"], "--split would have no effect"),
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_an_option_that_nothing_uses_is_refused_with_the_reason(name, folders, capsys):
    arguments, said = WITHOUT_EFFECT[name]
    words = [word.format(fake=folders[0]) for word in arguments]
    status, line = refuse(capsys, *folders, *words)
    assert status == 2
    assert said in line


@pytest.mark.parametrize("options", [["--strict"], ["--skip-bad", "2"], ["--fit"]])
def test_options_of_folders_are_refused_where_a_run_is_compared_with_its_own_data(options, tiny_run, capsys):
    status, line = refuse(capsys, tiny_run, "--rfd", *options)
    assert status == 2
    assert f"{options[0]} would have no effect" in line


def test_few_images_are_said(folders, capsys):
    count = 24
    _, said = answer(capsys, *folders, "--rfd", "--num", count + 1, "--exit-zero", "--precision", "fp32")
    assert f"--num {count + 1}: one side has {count} images; all of them are used" in said
    assert f"rfd and swd score {count // 2} of {count} images" in said
    assert "--exit-zero has no effect: there is no gate" in said
    assert "--precision has no effect" in said


REFUSED = {
    "missing folder": (["./nothing"], 1, "nothing"),
    "missing run": (["nothing"], 1, "nothing"),
    "missing reference": (["{fake}", "--reference", "./nothing"], 1, "./nothing"),
    "folder alone": (["{fake}"], 2, "--reference"),
    "two references": (["{fake}", "{real}", "--reference", "cifar10"], 2, "give one"),
    "unknown mode": (["{fake}", "{real}", "--mode", "cleen"], 2, "did you mean `clean`"),
    "missing weights": (["{fake}", "{real}", "--fid", "--weights", "none.pth"], 1, "none.pth"),
    "lpips of a run": (["--lpips"], 1, "gtool train"),
    "few for infinity": (["{fake}", "{real}", "--fid-infinity"], 1, "10,000"),
    "few for is": (["{fake}", "{real}", "--is", "--num", "6"], 1, "10 images"),
    "no weights": (["{fake}", "{real}", "--fid"], 1, "--swd"),
    "nothing trained yet": ([], 1, "gtool train"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scored_is_one_line(name, folders, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv(INCEPTION.variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments, status, part = REFUSED[name]
    words = [word.format(fake=folders[0], real=folders[1]) for word in arguments]
    assert run(["--quiet", "eval", *words]) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert part in lines[0]
