"""Which keys of a recipe are for which models: refused elsewhere, and looked at where they are not."""

from __future__ import annotations

import pytest

from gtool.cli import run
from gtool.config.recipe import make_recipe, read_table, recipes_folder, to_toml
from gtool.config.schema import NEEDS, LossRecipe, Recipe, Section
from gtool.errors import RecipeError
from gtool.models.registry import MODELS, foreign_keys
from gtool.train.resolve import check_keys
from tests.golden.commands import save_pictures
from tests.helpers import runs
from tests.helpers.tiny import (
    save_tokenizer,
    tiny_gansformer,
    tiny_prior,
    tiny_recipe,
    tiny_strokes,
    tiny_tokenizer,
)

KEYS = [
    f"{section}.{key}"
    for section, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    for key in field.annotation.model_fields
]
TINY = {
    "transgan": tiny_recipe,
    "gansformer": tiny_gansformer,
    "vqgan": tiny_tokenizer,
    "prior": tiny_prior,
    "paint-transformer": tiny_strokes,
}


def is_foreign(key, model):
    return any(f"{key}.".startswith(f"{foreign}.") for foreign in foreign_keys(model))


@pytest.mark.parametrize("model", MODELS)
def test_what_means_nothing_for_a_model_is_refused_by_the_words_that_asked_for_it(model):
    recipe = Recipe(model_name=model)
    for key in KEYS:
        section, _, name = key.partition(".")
        asked = getattr(recipe, section).model_copy(update={name: "other"})
        recipe_of_it = recipe.model_copy(update={section: asked})
        for typed, words in (
            ({key: f"--set {key}=other"}, f"--set {key}=other: means"),
            ({}, f"r.toml: {section}"),
        ):
            if is_foreign(key, model):
                with pytest.raises(RecipeError, match="means nothing for") as refused:
                    check_keys(recipe_of_it, "r.toml", typed)
                assert str(refused.value).startswith(words)
            else:
                check_keys(recipe_of_it, "r.toml", typed)


def test_the_keys_that_models_name_are_those_of_recipes():
    named = {key for row in MODELS.values() for key in row.keys}
    assert named - set(KEYS) - set(Recipe.model_fields) == set()


def test_shipped_recipes_and_those_of_runs_hold_nothing_that_means_nothing():
    for path in sorted(recipes_folder().glob("*/*.toml")):
        recipe = make_recipe(read_table(path), where=str(path))
        check_keys(recipe, str(path), {})
    written = to_toml(Recipe(model_name="vqgan"), leave_out=foreign_keys("vqgan"))
    assert [word for word in ("n_critic", "[loss]", "micro_batch", "batch_size") if word in written] == [
        "batch_size"
    ]


# What has to be on so that all other keys of a model have something to do.
ON = {
    "": ["train.kimg=0.04", "train.tick_kimg=0.01", "optim.decay=cosine"],
    "transgan": [
        "train.n_critic=1",
        "optim.lazy_rescale=true",
        "augment.target=0.5",
        "loss.super_resolution=1.0",
        "loss.projected=0.1",
    ],
    "gansformer": [
        *("optim.lazy_rescale=true", "augment.target=0.5", "augment.policy=ada", "loss.path_length=1.0"),
        "loss.projected=0.1",
        *("loss.path_length_interval=1", "loss.component_mixing=0.1", "loss.style_mixing=0.1"),
    ],
    "prior": ["model.prior.orders=any"],
    "paint-transformer": ["strokes.supervised_until=0.0", "strokes.supervised_weight=0.5"],
}
# Of another network (test_tokenizer_training.py), of pictures that are drawn (test_strokes_training.py), of runs that
# begin with weights (test_transfer.py).
ELSEWHERE = {"reconstruction.lpips_vgg", "reconstruction.lpips_heads", "strokes.scenes_share"}
ELSEWHERE |= {"train.discriminator_kimg"}


@pytest.mark.parametrize("model", MODELS)
def test_every_other_key_is_looked_at_by_a_run(model, monkeypatch, tmp_path):
    settings = [*ON[""], *ON.get(model, [])]
    if model == "transgan":
        settings.append("model.generator.super_resolution=true")
    if model == "prior":
        settings.append(f"prior.tokenizer={save_tokenizer(tmp_path / 't' / 'weights-000001.safetensors')}")
    if model == "paint-transformer":
        settings.append(f"data.dataset={save_pictures(tmp_path / 'pictures', 20, 40)}")
    recipe = runs.write_recipe(TINY[model](*settings))
    seen, look = set(), object.__getattribute__

    def spy(section, name):
        if name in type(section).model_fields:
            seen.add(f"{type(section).__name__.removesuffix('Recipe').lower()}.{name}")
        return look(section, name)

    monkeypatch.setattr(Section, "__getattribute__", spy)
    assert runs.train(model, recipe, "out") == 0
    assert {key for key in KEYS if not is_foreign(key, model)} - seen - ELSEWHERE == set()


def test_what_needs_another_key_is_said_to_have_no_effect(capsys):
    check_keys(Recipe(model_name="gansformer"), "r.toml", {"loss.path_length_interval": "--set x=1"})
    assert capsys.readouterr().err == "warning: --set x=1: has no effect without loss.path_length\n"
    recipe = Recipe(model_name="gansformer", loss=LossRecipe(path_length=2.0))
    check_keys(recipe, "r.toml", {"loss.path_length_interval": "--set x=1"})
    assert capsys.readouterr().err == ""
    assert set(NEEDS) | {key for keys in NEEDS.values() for key in keys} <= set(KEYS)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("model.resolution=48", "resolution 48 cannot be made"),
        ("data.resolution=36", "resolution 36 cannot be made"),
        ("augment.policy=foo", "unknown augmentation `foo`"),
        ("train.batch_size=0", "`train.batch_size` = 0"),
    ],
)
def test_what_a_setting_spoils_is_said_of_the_setting(setting, reason, capsys):
    assert run(["train", "transgan", "--set", setting, "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --set {setting}: {reason}")
