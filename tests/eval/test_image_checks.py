"""What libraries of metrics do wrong with files that people really have, line by line, and what `gtool eval` does.

The lines are those of a measurement of clean-fid 0.1.35: crashes without a file's name, files passed over in silence,
numbers from garbage.
"""

from __future__ import annotations

import os
import threading
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.data import threads
from gtool.eval.checks import check
from gtool.eval.options import EvalOptions
from gtool.eval.run import run as run_options
from gtool.metrics.features.published import MODES
from tests.eval import commands
from tests.eval.commands import save
from tests.helpers import odd_images, pictures, small_inception


@pytest.fixture
def real(tmp_path):
    return save(tmp_path / "real", pictures.draw(8, seed=2))


@pytest.fixture
def fake(tmp_path):
    return save(tmp_path / "fake", pictures.draw(8, seed=1))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    return small_inception.install(tmp_path, monkeypatch)


@pytest.fixture
def answer(capsys):
    """Run `gtool eval ... --json`, return the record and what was said."""

    def ask(*arguments, metric="--rfd"):
        return commands.answer(capsys, *arguments, metric)

    return ask


@pytest.fixture
def refusal(capsys):
    """Run `gtool eval ...` that must fail with a status, return its one line."""

    def ask(*arguments, status=1, metric="--rfd"):
        found, line = commands.refuse(capsys, *arguments, metric)
        assert found == status
        return line

    return ask


def value(record):
    return record["metrics"]["rfd"]["value"]


# Too few images, and what is no number.


def test_few_images_are_warned_of_and_marked_and_equal_sets_score_zero(real, answer, weights):
    """Neither SciPy's nor torch's deprecations show: here every warning is an error."""
    record, said = answer(real, real, metric="--fid")
    found = record["metrics"]["fid"]
    assert (found["value"], found["comparable"]) == (pytest.approx(0, abs=1e-6), False)
    assert "fewer than its 2,048 dimensions" in said
    assert "not comparable with published numbers" in said


def test_a_distance_rounded_up_to_zero_says_so(real, answer, weights, monkeypatch):
    monkeypatch.setattr("gtool.metrics.fid.fid", lambda *_: {"fid": 0.0})
    assert "below it by rounding" in answer(real, real, metric="--fid")[1]


@pytest.mark.parametrize("metric", ["--fid", "--kid", "--rfd", "--swd"])
def test_one_image_is_refused_before_any_weights_are_looked_for(metric, real, tmp_path, refusal):
    one = save(tmp_path / "one", pictures.draw(1, seed=1))
    assert "1 image found; at least 2" in refusal(one, real, metric=metric)


def test_a_generator_that_makes_nan_is_found_out_before_any_distance(tiny_run, refusal, monkeypatch):
    def batches(*_, **__):
        yield torch.full((4, 3, 16, 16), float("nan")), ()

    monkeypatch.setattr("gtool.models.generate.batches", batches)
    assert "not finite (images 0 to 3)" in refusal(tiny_run, "--num", "4")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_auto_is_the_processor_and_cuda_is_one_line(fake, real, answer, refusal):
    assert "CPU" in answer(fake, real)[0]["device"]
    assert "no CUDA device" in refusal(fake, real, "--device", "cuda")


# What is in a folder.


def test_a_missing_folder_is_named(fake, tmp_path, refusal):
    assert "none: no such folder" in refusal(fake, tmp_path / "none")


def test_an_empty_folder_says_what_was_looked_for_and_what_is_there(real, tmp_path, refusal):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images found (looked for avif bmp gif" in refusal(empty, real)
    (empty / "a.txt").touch()
    (empty / "b.MOV").touch()
    odd_images.plain(empty / ".hidden" / "a.png")
    said = refusal(empty, real)
    assert "what is there: .txt 1, .mov 1" in said
    assert "hidden files and folders are not looked into" in said


def test_gif_avif_and_capital_suffixes_count_and_hidden_folders_do_not(fake, real, answer):
    for name in ("a.gif", "b.Jpg", "c.JPEG", "d.PnG", "e.avif"):
        odd_images.plain(fake / name, size=(32, 32))
    odd_images.plain(fake / ".thumbnails" / "f.png", size=(32, 32))
    makeup = answer(fake, real)[0]["images"]["fake"]
    assert makeup["formats"] == {"PNG": 9, "JPEG": 2, "GIF": 1, "AVIF": 1}


def test_unsupported_files_are_counted_listed_and_refused_by_strict(fake, real, answer, refusal):
    (fake / "notes.txt").touch()
    (fake / "film.mov").touch()
    record, said = answer(fake, real)
    assert "2 files are no images: .mov 1, .txt 1 (film.mov, notes.txt); left out" in said
    assert record["images"]["fake"]["ignored"] == {"count": 2, "names": ["film.mov", "notes.txt"]}
    assert "--strict" in refusal(fake, real, "--strict")


def test_a_zip_with_other_files_is_treated_like_a_folder(fake, real, tmp_path, answer):
    with zipfile.ZipFile(tmp_path / "fake.zip", "w") as archive:
        for path in fake.iterdir():
            archive.write(path, path.name)
        archive.writestr("readme.md", "what these are")
    record, said = answer(tmp_path / "fake.zip", real)
    assert "1 file is no images: .md 1" in said
    assert record["metrics"]["rfd"]["value"] == value(answer(fake, real)[0])


@pytest.mark.parametrize("size", [[], ["--resolution", "16"]], ids=["own size", "resized"])
def test_damaged_files_are_named_and_tolerated_up_to_a_number(size, fake, real, answer, refusal):
    (fake / "cut.jpg").write_bytes(odd_images.truncated_jpeg())
    (fake / "page.png").write_text("<html>404</html>")
    said = refusal(fake, real, *size)
    assert "cut.jpg: damaged" in said
    assert "page.png: no image of a known format" in said
    assert "--skip-bad 2" in said
    assert "2 images cannot be read" in refusal(fake, real, *size, "--skip-bad", 1)
    record, said = answer(fake, real, *size, "--skip-bad", 2)
    makeup = record["images"]["fake"]
    assert {skipped["name"] for skipped in makeup["skipped"]} == {"cut.jpg", "page.png"}
    assert makeup["num_skipped"] == 2
    assert sum(makeup["formats"].values()) == 8
    assert "cut.jpg: left out" in said
    assert answer(fake, real, *size, "--skip-bad", 2)[0]["metrics"] == record["metrics"]  # from the cache


def test_an_image_whose_pixels_are_damaged_is_named_by_either_side_and_left_out_of_it(
    fake, real, answer, refusal
):
    """Its header is sound, so it shows only when it is scored, after others were taken."""
    whole = (real / "0005.png").read_bytes()
    for folder in (fake, real):
        (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
        assert "torn.png: damaged" in refusal(fake, real)
        (folder / "torn.png").unlink()
    (real / "torn.png").write_bytes(whole[: len(whole) // 2])
    record, said = answer(fake, real, "--skip-bad", 1)
    assert "torn.png: left out" in said
    (real / "torn.png").unlink()
    assert record["metrics"] == answer(fake, real)[0]["metrics"]


def test_what_training_could_not_read_is_left_out_of_its_own_reference(tiny_run, tmp_path, answer):
    folder = save(tmp_path / "photos", pictures.draw(9, seed=1))
    (folder / "page.png").write_text("<html>404</html>")
    path = tiny_run / "weights-000012.safetensors"
    from gtool.io.weights import load_weights, save_weights

    stored = load_weights(path)
    stored.meta["recipe"]["data"] |= {"dataset": str(folder), "num_images": None}
    del stored.meta["format"]
    save_weights(path, stored.tensors, stored.meta)
    record, said = answer(tiny_run, "--num", 4)
    assert "page.png: left out" in said
    assert record["images"]["real"]["num_skipped"] == 1


# Modes and formats.


def test_16_bit_grey_is_scaled_and_said(fake, tmp_path, answer):
    grey = pictures.draw(8, seed=2)[:, 0]
    for name, kind, factor in (("deep", np.uint16, 257), ("plain", np.uint8, 1)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(grey):
            Image.fromarray(image.astype(kind) * factor).save(tmp_path / name / f"{number}.png")
    deep, said = answer(fake, tmp_path / "deep")
    assert value(deep) == value(answer(fake, tmp_path / "plain")[0])
    assert "8 images: 16 bits scaled to 8 by 1/257" in said
    assert deep["images"]["real"]["modes"] == {"I;16": 8}
    assert sum(deep["images"]["real"]["converted"].values()) == 8


def test_transparent_images_are_composed_on_white_and_said(fake, tmp_path, answer):
    clear, white = tmp_path / "clear", tmp_path / "white"
    for folder in (clear, white):
        save(folder, pictures.draw(6, seed=2))
    for number in (6, 7):
        Image.new("RGBA", (32, 32), (220, 30, 40, 0)).save(clear / f"{number}.png")
        Image.new("RGB", (32, 32), (255, 255, 255)).save(white / f"{number}.png")
    found, said = answer(fake, clear)
    assert value(found) == value(answer(fake, white)[0])
    assert "2 images: alpha composed on white" in said
    assert found["images"]["real"]["background"] == "white"


def test_grey_palette_cmyk_and_webp_are_accepted_and_counted(fake, real, answer):
    for number, (mode, suffix) in enumerate((("L", "png"), ("P", "png"), ("CMYK", "jpg"), ("RGB", "webp"))):
        options = {"lossless": True} if suffix == "webp" else {}
        Image.new("RGB", (32, 32), (30, 60, 90)).convert(mode).save(fake / f"x{number}.{suffix}", **options)
    makeup = answer(fake, real)[0]["images"]["fake"]
    assert makeup["modes"] == {"RGB": 9, "L": 1, "P": 1, "CMYK": 1}
    assert makeup["formats"] == {"PNG": 10, "JPEG": 1, "WEBP": 1}


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_arrays_of_0_to_255_score_as_the_same_pictures(kind, fake, tmp_path, answer):
    images = pictures.draw(8, seed=2)
    (tmp_path / "arrays").mkdir()
    for number, image in enumerate(images):
        np.save(tmp_path / "arrays" / f"{number:04d}.npy", image.transpose(1, 2, 0).astype(kind))
    record = answer(fake, tmp_path / "arrays")[0]
    assert record["images"]["real"]["formats"] == {"NPY": 8}
    assert value(record) == value(answer(fake, save(tmp_path / "files", images))[0])


BAD_ARRAYS = {
    "fractions": (lambda x: x / 255.0, "multiply by 255"),
    "channels first": (lambda x: x.transpose(2, 0, 1), "(height, width, 3)"),
    "no channels": (lambda x: x[:, :, 0], "(height, width, 3)"),
    "minus one to one": (lambda x: x / 127.5 - 1, "0 to 255"),
    "not finite": (lambda x: x * np.float32("nan"), "0 to 255"),
    "objects": (lambda x: np.array([{"a": 1}]), "damaged"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_of_another_shape_or_range_are_refused(name, fake, real, refusal):
    spoil, part = BAD_ARRAYS[name]
    np.save(fake / "bad.npy", spoil(pictures.draw(1, seed=3)[0].transpose(1, 2, 0)))
    said = refusal(fake, real)
    assert "bad.npy" in said
    assert part in said


# Sizes.


def test_images_that_are_not_square_need_the_users_word(fake, tmp_path, answer, refusal):
    oblong = tmp_path / "oblong"
    for number in range(8):
        odd_images.plain(oblong / f"{number}.png", (30 * number, 60, 90), size=(32, 20))
    said = refusal(oblong, fake)
    assert "8 images are not square (0.png (32x20)" in said
    assert "--fit" in said
    assert "--resolution" in said
    assert answer(oblong, fake, "--resolution", 16)[0]["metrics"]["rfd"]["num_fake"] == 4
    assert answer(oblong, fake, "--resolution", 16, "--fit")[0]["candidate"]["crop"] == "fit"


@pytest.mark.parametrize("mode", MODES)
def test_mixed_sizes_score_in_every_mode(mode, fake, tmp_path, answer, weights):
    save(tmp_path / "mixed", pictures.draw(2, seed=5))
    save(tmp_path / "mixed" / "large", pictures.draw(2, seed=6, side=48))
    record = answer(tmp_path / "mixed", fake, "--mode", mode, "--batch-size", 3, metric="--fid")[0]
    assert record["metrics"]["fid"]["num_fake"] == 4


def test_mixed_sizes_are_one_line_where_a_metric_needs_one_size(fake, real, refusal):
    odd_images.plain(fake / "large.png", size=(40, 40))
    assert "--resolution R" in refusal(fake, real)


# Names.


@pytest.mark.parametrize("metric", ["--rfd", "--paired"])
def test_images_of_one_pixel_are_refused_in_one_line(metric, tmp_path, refusal):
    dots = str(save(tmp_path / "dots", np.zeros((4, 3, 1, 1), np.uint8)))
    assert "1 x 1" in refusal(dots, dots, metric=metric).replace("1x1", "1 x 1")


def test_line_ends_and_colours_in_names_do_not_reach_the_log(real, tmp_path, answer):
    made = save(tmp_path / "made", pictures.draw(8, 1))
    (made / "a\n::error::b\x1b[31m.png").write_bytes(b"no image")
    _, said = answer(made, real, "--skip-bad", 1)
    assert "a\\n::error::b\\x1b[31m.png: left out" in said


def test_paths_are_as_good_as_texts(fake, real):
    records = [
        run_options(check(EvalOptions(target=a, other=b, metrics=("rfd",), device="cpu")))
        for a, b in ((fake, real), (str(fake), str(real)))
    ]
    assert records[0]["metrics"] == records[1]["metrics"]


def test_a_folder_may_be_called_like_an_archive(fake, real, answer):
    renamed = fake.rename(fake.with_name("photos.zip"))
    assert answer(renamed, real)[0]["metrics"]["rfd"]["num_fake"] == 4


def test_one_picture_in_two_formats_is_warned_of(fake, real, answer):
    Image.open(fake / "0003.png").save(fake / "0003.jpg")
    record, said = answer(fake, real)
    assert "1 names appear with several suffixes (0003.jpg and 0003.png)" in said
    assert sum(record["images"]["fake"]["formats"].values()) == 9


def test_a_mode_that_does_not_exist_is_found_out_at_once(fake, real, refusal):
    said = refusal(fake, real, "--mode", "legacy_pytorhc", status=2, metric="--fid")
    assert "did you mean `legacy_pytorch`" in said


def test_pictures_are_decoded_by_no_more_threads_than_cores(fake, real, answer, monkeypatch):
    seen = []
    plain = threads.ThreadPoolExecutor

    def pool(workers, *rest, **named):
        seen.append(workers)
        return plain(workers, *rest, **named)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", pool)
    before = threading.active_count()
    answer(fake, real)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert seen
    assert max(seen) <= cores
    assert threading.active_count() == before


# The record.


def test_a_reference_is_known_by_its_content_not_by_its_dates(fake, real, answer):
    first = answer(fake, real)[0]["reference"]["fingerprint"]
    os.utime(real / "0000.png", (1, 1))
    assert answer(fake, real)[0]["reference"]["fingerprint"] == first
    odd_images.plain(real / "0000.png", size=(32, 32))
    assert answer(fake, real)[0]["reference"]["fingerprint"] != first
