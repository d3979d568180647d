"""Recipes as files and settings: strict, helpful, and the same when written and read back."""

from __future__ import annotations

import time

import pytest

from gtool.config.recipe import make_recipe, overlay, parse_setting, read_table, shipped_recipes, to_toml
from gtool.errors import RecipeError
from tests.helpers.tiny import save_tokenizer

MINIMAL = {"schema": 1, "model_name": "transgan"}


def _error(settings: list[str]) -> str:
    with pytest.raises(RecipeError) as caught:
        make_recipe(MINIMAL, settings, where="test.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "fragments"),
    [
        ("train.batchsize=3", ["`train.batchsize`", "did you mean `batch_size`"]),
        ("trian.kimg=3", ["`trian`", "did you mean `train`"]),
        ("train.kimg=many", ["`train.kimg` = 'many'", "number"]),
        ("train.batch_size=1.5", ["`train.batch_size` = 1.5", "integer"]),
        ("train.batch_size=0", ["greater than or equal to 1"]),
        ("data.flip=1", ["`data.flip`", "boolean"]),
        ("data.condition=map", ["`data.condition`", "segmentation"]),
        ("data.num_labels=3", ["data.num_labels belongs to data.condition"]),
        ("loss.kind=hinges", ["`loss.kind`", "hinge"]),
        ("train.kimg", ["section.key=value"]),
        ("train.micro_batch=7", ["multiple"]),
        ("augment.target=0.6", ["augment.target needs operations in augment.policy"]),
        ("loss.style_mixing=1.1", ["`loss.style_mixing` = 1.1", "less than or equal to 1"]),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(setting, fragments):
    message = _error([setting])
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["augment.policy=ada", "augment.target=0.6", "augment.p=0.5"], "leave one out"),
        (["train.share_fakes=true", "loss.path_length=2.0"], "exclude each other"),
        (["loss.drift=0.1", "loss.kind=hinge"], "a term of `wgan-eps`"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_in_one_line(settings, message):
    assert message in _error(settings)
    assert "\n" not in _error(settings)


def test_a_later_setting_wins():
    recipe = make_recipe(MINIMAL, ["train.kimg=1", "train.kimg=2"], where="test.toml")
    assert recipe.train.kimg == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=1e-4", 1e-4), ("a.b=true", True), ("a.b=[0.0, 0.9]", [0.0, 0.9]), ("a.b=./photos", "./photos")],
)
def test_a_setting_is_read_as_toml_or_as_text(text, value):
    assert parse_setting(text) == (["a", "b"], value)


def test_overlay_reaches_items_of_lists():
    values = {"stages": [{"depth": 1}, {"depth": 2}]}
    overlay(values, ["stages", "1", "depth"], 5)
    assert values["stages"][1]["depth"] == 5


def test_a_written_recipe_reads_back_as_itself(tmp_path):
    path = tmp_path / "recipe.toml"
    model = {"generator": {"stages": [{"side": 8, "channels": 64}], "norm": "ln"}, "resolution": 32}
    recipe = make_recipe(
        MINIMAL | {"model": model}, ['data.dataset=my "photos"', "optim.clip_grad_norm=5.0"], where="x"
    )
    path.write_text(to_toml(recipe, comment="two\nlines"), encoding="utf-8")
    assert make_recipe(read_table(path), where="y") == recipe


@pytest.mark.parametrize("text", ["schema = 2\n", "not toml at all [", "model_name = 'transgan'\n"])
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"bad\.toml"):
        read_table(path)


@pytest.mark.parametrize(
    "text",
    [
        "a=" + "[" * 20_000,
        "a=" + "{a=" * 20_000,
        ".".join("a" * 20_000),
        "[" + " . ".join(["'a b'"] * 20_000) + "]",
        "# " + "x" * 200_000,
    ],
    ids=["lists", "tables", "key", "header", "large"],
)
def test_a_file_that_would_take_long_to_read_is_refused_at_once(text, tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(f"schema = 1\n{text}")
    start = time.process_time()
    with pytest.raises(RecipeError, match="odd.toml: (not valid TOML|larger than)"):
        read_table(path)
    assert time.process_time() - start < 1
    if "\n" not in text and "=" in text:
        with pytest.raises(RecipeError, match="--set"):
            make_recipe(MINIMAL, [text], where="x")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_resolves_to_networks(name, tmp_path):
    from gtool.train.options import TrainOptions
    from gtool.train.resolve import resolve

    model, _, recipe = name.partition("/")
    tokenizer = None
    if model == "prior":  # which learns the codes of a tokenizer
        tokenizer = str(save_tokenizer(tmp_path / "tokenizer.safetensors"))
    found = resolve(TrainOptions(model=model, recipe=recipe, tokenizer=tokenizer))
    assert found.config.resolution == found.recipe.data.resolution


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_says_how_it_is_run_and_what_it_gives(name):
    from gtool.config.recipe import recipes_folder

    text = (recipes_folder() / f"{name}.toml").read_text(encoding="utf-8")
    comment = " ".join(line[1:] for line in text.splitlines() if line.startswith("#")).lower()
    for word in ("gtool train", "hardware", "time", "result"):
        assert word in comment


def test_a_length_in_images_replaces_one_in_minutes():
    from gtool.train.options import TrainOptions
    from gtool.train.resolve import resolve

    def minutes(**flags):
        return resolve(TrainOptions(model="transgan", recipe="scenes", **flags)).recipe.train.minutes

    assert minutes() is not None
    assert minutes(kimg=2.0) is None
    assert minutes(kimg=2.0, minutes=3.0) == 3.0
