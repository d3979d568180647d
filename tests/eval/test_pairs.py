"""`gtool eval A B --paired`: partners by name, means over pairs, what has no partner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gtool.cli import run
from gtool.metrics import paired
from gtool.metrics.features.weights import VGG16
from tests.eval import commands
from tests.helpers import pictures, vgg16_standin


def save(folder, images, suffix="png"):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number}.{suffix}", lossless=True)
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Pictures and the same with noise, under other suffixes, one of them in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    real = pictures.draw(5, seed=0)
    made, originals = save(tmp_path / "made", pictures.noisy(real, 8), "webp"), save(tmp_path / "real", real)
    for folder, suffix in ((made, "webp"), (originals, "png")):
        (folder / "deep").mkdir()
        (folder / f"4.{suffix}").rename(folder / "deep" / f"4.{suffix}")
    return made, originals


def answer(capsys, *arguments):
    return commands.ask(capsys, *arguments, "--paired")


def test_pairs_are_found_by_name_and_scored_by_their_means(folders, capsys):
    metrics = answer(capsys, *folders)["metrics"]
    made, real = pictures.noisy(pictures.draw(5, seed=0), 8).astype(float), pictures.draw(5, seed=0)
    errors = np.square(made - real).mean((1, 2, 3))
    assert metrics["psnr"]["value"] == pytest.approx(float((10 * np.log10(255**2 / errors)).mean()), abs=1e-3)
    assert metrics["l1"]["value"] == pytest.approx(float(np.abs(made - real).mean()), rel=1e-5)
    assert 0 < metrics["ssim"]["value"] < 1
    assert metrics["psnr"]["protocol"] == "paired-v1/psnr/n5/ref-real"
    assert list(metrics) == ["psnr", "ssim", "l1"]


def test_the_record_names_the_originals_and_where_the_sheet_is(folders, capsys):
    record = commands.ask(capsys, *folders, "--paired")
    assert record["reference"]["name"].endswith("real")
    assert record["picture"] == "paired.png"


def test_a_sheet_takes_the_place_of_an_earlier_sheet_and_of_no_other_file(folders, capsys):
    for _ in range(2):
        assert commands.ask(capsys, *folders, "--paired")["picture"] == "paired.png"
    Path("paired.png").write_text("mine")
    assert commands.ask(capsys, *folders, "--paired")["picture"] == "paired-2.png"
    assert Path("paired.png").read_text() == "mine"


def test_equal_pictures_are_as_near_as_can_be_and_the_reference_may_be_named(folders, capsys):
    metrics = answer(capsys, folders[1], "--reference", folders[1])["metrics"]
    assert metrics["ssim"]["value"] == pytest.approx(1)
    assert metrics["l1"]["value"] == 0
    assert metrics["psnr"]["value"] == pytest.approx(78.13, abs=0.01)  # squared error counted as 0.001


def test_lpips_is_measured_with_the_weights_of_vgg16_and_says_where_they_are_missing(
    folders, tmp_path, capsys, monkeypatch
):
    paired.load_lpips.cache_clear()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    status, line = refused(capsys, *folders, "--lpips")
    assert status == 1
    assert f"LPIPS needs the VGG16 weights, vgg16-397923af.pth: not in {tmp_path}" in line
    monkeypatch.setenv(VGG16.variable, str(vgg16_standin.make(tmp_path / "vgg16.pth")))
    metrics = commands.ask(capsys, *folders, "--lpips")["metrics"]
    assert metrics["lpips"]["value"] > 0
    assert metrics["lpips"]["protocol"] == "paired-v1/lpips/n5/ref-real"
    assert commands.ask(capsys, folders[1], folders[1], "--lpips")["metrics"]["lpips"]["value"] == 0
    paired.load_lpips.cache_clear()


def test_the_sheet_shows_the_worst_first(folders, capsys):
    dark = np.zeros((32, 32, 3), np.uint8)
    Image.fromarray(dark).save(folders[0] / "2.webp", lossless=True)
    with Image.open(answer(capsys, *folders)["picture"]) as sheet:
        assert sheet.info["images"].split(", ")[0] == "2"


def refused(capsys, *arguments):
    return commands.refuse(capsys, *arguments, "--paired")


def test_what_has_no_partner_is_named(folders, capsys):
    (folders[1] / "3.png").unlink()
    status, line = refused(capsys, *folders)
    assert status == 1
    assert "no partner for 1 of 5 pictures (3)" in line


def test_partners_of_different_size_are_named(folders, capsys):
    Image.new("RGB", (40, 40)).save(folders[1] / "1.png")
    status, line = refused(capsys, *folders)
    assert status == 1
    assert "1: partners of different size (32x32 and 40x40)" in line
    assert answer(capsys, *folders, "--resolution", 32)["metrics"]["l1"]["num_fake"] == 5


def test_pairs_need_two_folders_and_no_other_metric(folders, capsys):
    assert refused(capsys, folders[0])[0] == 2
    assert refused(capsys, *folders, "--rfd")[0] == 2


def warned(capsys, *arguments):
    """Return the record and what was said beside it."""
    return commands.answer(capsys, *arguments, "--paired")


@pytest.mark.parametrize("size", [(), ("--resolution", 32)], ids=["own size", "resized"])
def test_a_bad_picture_is_refused_or_left_out_with_its_partner(size, folders, capsys):
    (folders[0] / "1.webp").write_bytes(b"no picture")
    good = (folders[1] / "3.png").read_bytes()
    (folders[1] / "3.png").write_bytes(good[: len(good) // 2])
    status, line = refused(capsys, *folders, *size)
    assert (status, "1.webp" in line, "--skip-bad 1" in line) == (1, True, True)
    record, said = warned(capsys, *folders, *size, "--skip-bad", 1)
    assert "2 of 5 pairs are left out: 1, 3" in said
    assert record["pairs_left_out"] == ["1", "3"]
    assert record["metrics"]["l1"]["num_fake"] == 3
    assert [record["images"][side]["num_skipped"] for side in ("fake", "real")] == [1, 1]
    for folder, suffix in zip(folders, ("webp", "png"), strict=True):
        for name in ("0", "2", "deep/4"):
            (folder / f"{name}.{suffix}").write_bytes(b"")
    assert run(["eval", *map(str, folders), "--paired", *map(str, size), "--skip-bad", "5"]) == 1
    assert "images can be read" in capsys.readouterr().err.strip().splitlines()[-1]


def test_other_files_are_counted_and_refused_by_strict(folders, capsys):
    (folders[1] / "notes.txt").write_text("taken in May")
    record, said = warned(capsys, *folders)
    assert "1 file is no images" in said
    assert record["images"]["real"]["ignored"]["names"] == ["notes.txt"]
    status, line = refused(capsys, *folders, "--strict")
    assert (status, "notes.txt" in line) == (1, True)


def test_arrays_are_pictures_and_what_is_transparent_is_said(folders, capsys):
    plain = answer(capsys, *folders)
    with Image.open(folders[0] / "2.webp") as opened:
        np.save(folders[0] / "2.npy", np.asarray(opened))
    (folders[0] / "2.webp").unlink()
    with Image.open(folders[1] / "1.png") as opened:
        opened.convert("RGBA").save(folders[1] / "1.png")
    record, said = warned(capsys, *folders)
    values = [{name: found["value"] for name, found in one["metrics"].items()} for one in (plain, record)]
    assert values[0] == values[1]
    assert "alpha composed on white" in said


def test_originals_are_known_by_their_content(folders, capsys):
    before = answer(capsys, *folders)["reference"]["fingerprint"]
    (folders[1] / "1.png").touch()
    assert answer(capsys, *folders)["reference"]["fingerprint"] == before
    Image.new("RGB", (32, 32)).save(folders[1] / "1.png")
    assert answer(capsys, *folders)["reference"]["fingerprint"] != before
