"""`gtool train paint-transformer --finetune`: pictures of the user's own, from trained weights on."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gtool.cli import run
from gtool.config.recipe import find_recipe, make_recipe, read_table, to_toml
from gtool.data.random_crops import random_crops
from gtool.io import run_folder
from gtool.io.run_folder import find_weights
from gtool.train.stroke_targets import cut_pictures
from tests.helpers import odd_images as odd
from tests.helpers import runs
from tests.helpers.painted import draw_photo
from tests.helpers.tiny import STROKES, tiny_strokes

SMALL = ["train.batch_size=10", "train.kimg=0.04", "train.snapshot_kimg=0.02", "train.metric_images=16"]
SMALL += ["strokes.num_pictures=16", "strokes.count=4", "sample.num=1", "train.precision=fp32"]


def finetune(data, *more) -> int:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    arguments = ["train", "paint-transformer", "--finetune", data, "--device", "cpu", *settings, *more]
    return run([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run of a tiny predictor, trained for a few steps."""
    folder = tmp_path_factory.mktemp("start")
    recipe, out = folder / "tiny.toml", folder / "run"
    recipe.write_text(to_toml(tiny_strokes("train.kimg=0.02")), encoding="utf-8")
    assert runs.train("paint-transformer", str(recipe), str(out)) == 0
    return str(out)


@pytest.fixture
def photos(tmp_path):
    """A folder of three photos."""
    for number in range(3):
        draw_photo(tmp_path / f"photos/{number}.png", number, (160, 140))
    return "photos"


def weights(out) -> dict[str, torch.Tensor]:
    return load_file(find_weights(str(out)))


def first_record(out) -> dict:
    return json.loads((Path(out) / "log.jsonl").read_text().splitlines()[0])


def test_finetuning_goes_on_from_the_weights(start, photos, capsys):
    assert finetune(photos, "--weights", start, "--out", "out", "--set", "optim.learning_rate=1e-9") == 0
    before, after = weights(start), weights("out")
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)
    said = capsys.readouterr().err
    assert "photos: 3 images" in said
    assert "gtool paint photo.jpg --weights out" in said


def test_weights_of_the_package_are_the_default(start, photos, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "SHIPPED_FOLDER", Path("nowhere"))
    assert finetune(photos) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no trained weights come with this gtool" in line
    assert "--weights" in line
    assert not Path("runs").exists()
    shutil.copy(find_weights(start), "paint-transformer.safetensors")
    monkeypatch.setattr(run_folder, "SHIPPED_FOLDER", Path())
    assert finetune(photos) == 0
    (made,) = Path("runs").iterdir()
    assert made.name == "paint-transformer-photos-000"
    assert 'weights = "shipped"' in (made / "recipe.toml").read_text()


@pytest.mark.parametrize("recipe", ["default", "finetune"])
def test_finetuning_by_any_recipe_begins_with_weights(photos, capsys, recipe):
    assert finetune(photos, "--recipe", recipe, "--dry-run") == 0
    assert 'weights = "shipped"' in capsys.readouterr().out


def test_pictures_are_learned_from_and_scored_and_shown(start, photos):
    """Photos of one colour: any stroke paints them, whatever a predictor has learned elsewhere."""
    for path in Path(photos).iterdir():
        Image.new("RGB", (200, 150), odd.RED).save(path)
    assert finetune(photos, "--weights", start, "--out", "out") == 0
    with Image.open("out/samples/real.png") as shown:
        assert np.abs(np.asarray(shown.convert("RGB"))[8:-8, 8:-8].astype(int) - odd.RED).max() <= 1
    ticks = [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()]
    assert [tick["nimg"] for tick in ticks][-1] == 40
    assert all("reward" in tick for tick in ticks[1:])


def test_the_recipe_says_all_and_runs_again_to_the_same_weights(start, photos):
    assert finetune(photos, "--weights", start, "--out", "first") == 0
    recipe = make_recipe(read_table(Path("first/recipe.toml")), where="first")
    assert (recipe.data.dataset, recipe.train.weights) == (photos, start)
    assert (recipe.model["width"], recipe.strokes.supervised_until) == (STROKES["model"]["width"], 0.0)
    assert runs.train("paint-transformer", "first/recipe.toml", "second") == 0
    runs.assert_same_state("first", "second")


def test_a_run_killed_before_its_first_snapshot_begins_with_the_weights_again(start, photos):
    assert finetune(photos, "--weights", start, "--out", "straight") == 0
    process = runs.start("paint-transformer", "straight/recipe.toml", "killed")
    runs.kill_at("log.jsonl", "killed", process)
    assert run(["train", "paint-transformer", "--resume", "killed", "--device", "cpu"]) == 0
    runs.assert_same_state("straight", "killed")


def test_a_resumed_run_needs_its_state_and_no_weights(start, photos, tmp_path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(find_weights(start).read_bytes())
    assert finetune(photos, "--weights", mine, "--out", "out", "--kimg", "0.02") == 0
    mine.unlink()
    assert run(["train", "paint-transformer", "--resume", "out", "--kimg", "0.04", "--device", "cpu"]) == 0
    assert find_weights("out").name == "weights-000000.040.safetensors"


def test_pictures_of_every_kind_are_learned_from(start, capsys):
    Path("mixed").mkdir()
    Image.new("L", (40, 30), 90).save("mixed/grey.png")
    Path("mixed/turned.jpg").write_bytes(odd.turned_jpeg())
    Path("mixed/alpha.png").write_bytes(odd.encode(odd.half_transparent()))
    Path("mixed/film.gif").write_bytes(odd.animation())
    draw_photo("mixed/wide.png", size=(700, 90))
    Path("mixed/broken.jpg").write_bytes(odd.truncated_jpeg())
    Path("mixed/text.png").write_text("no image")
    assert finetune("mixed", "--weights", start, "--out", "out") == 0
    said = capsys.readouterr().err
    assert "2 files cannot be read and are left out" in said
    assert "broken.jpg: " in said
    assert "text.png: " in said
    assert "5 images" in said


def test_a_zip_is_a_folder(start, photos, capsys):
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for path in sorted(Path(photos).iterdir()):
            archive.write(path)
    assert finetune("photos.zip", "--weights", start, "--out", "zipped") == 0
    assert finetune(photos, "--weights", start, "--out", "plain") == 0
    runs.assert_same_state("zipped", "plain")


def test_a_table_is_learned_from(start):
    datasets = pytest.importorskip("datasets")
    encoded = []
    for number in range(3):
        buffer = io.BytesIO()
        Image.open(draw_photo(f"{number}.png", number)).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    table = datasets.Dataset.from_dict({"image": encoded}).cast_column("image", datasets.Image())
    table.to_parquet("photos.parquet")
    assert finetune("photos.parquet", "--weights", start, "--out", "out") == 0


# What cannot be.


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--weights", "nothing"], 1, "nothing: no such run or file"),
        (["--weights", "tiny.safetensors"], 1, "weights of transgan, not of paint-transformer"),
        (["--weights", "START", "--dataset", "scenes"], 2, "leave --dataset out"),
        (["--weights", "START", "--set", "model.width=16"], 2, "model.width: the network is that of"),
        (["--weights", "START", "--batch-size", "4"], 2, "no room for a crop of a picture"),
        (["--weights", "model.pth"], 1, "gtool export model.pth --from"),
    ],
)
def test_what_means_nothing_is_one_line_and_leaves_nothing(
    start, photos, more, status, said, tiny_weights, capsys
):
    Path("model.pth").write_bytes(b"PK")
    assert finetune(photos, "--out", "out", *[start if word == "START" else word for word in more]) == status
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert said in errors[0]
    assert not Path("out").exists()


@pytest.mark.parametrize("folder", ["nothing", "empty", "one", "broken"])
def test_a_folder_without_pictures_is_one_line(start, folder, capsys):
    for name in ("empty", "one", "broken"):
        Path(name).mkdir()
    odd.plain(Path("one/a.png"))
    for number in range(3):
        Path(f"broken/{number}.jpg").write_bytes(odd.truncated_jpeg())
    assert finetune(folder, "--weights", start, "--out", "out") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert folder in line
    assert not Path("out").exists()


# What pictures become.


def test_squares_are_cut_at_all_sizes_and_places():
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    image = np.stack([np.broadcast_to(ramp, (256, 256)), np.broadcast_to(ramp[:, None], (256, 256))])
    images = np.concatenate([image, image[:1] * 0 + 7])[None]  # red is the column, green the row
    cut = random_crops(
        images, torch.zeros(200, dtype=torch.long), 64, torch.Generator().manual_seed(0)
    ).float()
    assert cut.shape == (200, 3, 64, 64)
    assert (cut[:, 2] == 7).all()
    width = cut[:, 0, 32, -1] - cut[:, 0, 32, 0] + 4
    assert 60 <= width.min() < 80
    assert width.max() > 230
    assert abs(float((width > 128).float().mean()) - 0.5) < 0.1
    assert cut[:, 1, 0].min() < 10
    assert cut[:, 1, -1].max() > 245


def numbered(count):
    """Images whose grey is their number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 3, 128, 128))


@pytest.mark.parametrize("count", [16, 40, 200])
def test_held_out_images_are_not_learned_from(count):
    made = cut_pictures(numbered(count), tiny_strokes("strokes.num_pictures=100", "sample.num=4"))
    seen, scored, shown = (set(x[:, 0, 0, 0].tolist()) for x in (made.training, made.held_out, made.shown))
    assert not seen & scored
    assert shown <= scored
    assert len(scored) == count // 8
    assert len(seen) == min(100, count - count // 8)
    assert (len(made.training), len(made.held_out)) == (100, 64)


def test_all_of_few_images_are_learned_from_and_scored():
    made = cut_pictures(numbered(5), tiny_strokes())
    for pictures in (made.training, made.held_out):
        assert set(pictures[:, 0, 0, 0].tolist()) == set(range(5))


def test_the_recipe_is_gentler_than_that_from_scratch():
    ours, scratch = (
        make_recipe(read_table(find_recipe(name, "paint-transformer")), where=name)
        for name in ("finetune", "default")
    )
    assert ours.optim.learning_rate < scratch.optim.learning_rate
    assert ours.strokes.supervised_until == 0
    assert ours.train.weights == "shipped"
