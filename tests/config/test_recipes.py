"""`gtool recipes`: what is listed, shown and copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtool.cli import run
from gtool.config.recipe import find_recipe, make_recipe, read_table, recipes_folder, shipped_recipes
from gtool.errors import RecipeError


def test_every_shipped_recipe_is_listed_with_its_facts(capsys):
    assert run(["recipes", "ls", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["recipes"]
    assert [entry["name"] for entry in entries] == shipped_recipes()
    by_name = {entry["name"]: entry for entry in entries}
    assert by_name["transgan/church-256"]["resolution"] == 256
    for entry in entries:
        assert entry["summary"].split()[0] in (
            "TransGAN",
            "GANsformer",
            "Paint",
            "Image-GPT",
            "The",
            "A",
            "Trained",
        )
        assert not entry["summary"].endswith(".")
        assert all(entry[fact] for fact in ("hardware", "time", "result"))


def test_recipes_alone_lists_them(capsys):
    assert run(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(shipped_recipes())
    assert "transgan/celeba-128        128 px  TransGAN on CelebA" in "\n".join(lines)


def test_a_recipe_like_no_other_is_answered_with_where_all_are(capsys):
    assert run(["recipes", "show", "nope"]) == 2
    assert capsys.readouterr().err == "error: recipe `nope` does not exist; `gtool recipes ls` lists all\n"


@pytest.mark.parametrize("name", ["transgan/cifar10", "cifar10"])
def test_a_recipe_is_shown_byte_for_byte(capsys, name):
    assert run(["recipes", "show", name]) == 0
    expected = (recipes_folder() / "transgan" / "cifar10.toml").read_text(encoding="utf-8")
    assert capsys.readouterr().out == expected


def test_a_file_that_is_called_otherwise_is_no_recipe_and_a_marked_one_is(tmp_path):
    text = (recipes_folder() / "transgan" / "cifar10.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine.txt: the name of a recipe file ends in .toml"):
        find_recipe(str(tmp_path / "mine.txt"), "transgan")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8-sig")  # as some editors mark UTF-8
    assert read_table(tmp_path / "mine.toml")["model_name"] == "transgan"


def test_an_unknown_recipe_is_answered_with_the_nearest(capsys):
    assert run(["recipes", "show", "cifer10"]) == 2
    assert capsys.readouterr().err == "error: recipe `cifer10` does not exist; did you mean `cifar10`?\n"


def test_a_copied_recipe_is_a_recipe_and_the_next_command_is_said(capsys):
    assert run(["recipes", "cp", "cifar10-cpu"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "cifar10-cpu.toml\n"
    assert "gtool train transgan --recipe cifar10-cpu.toml" in shown.err
    copied = Path("cifar10-cpu.toml")
    assert make_recipe(read_table(copied), where=str(copied)).data.dataset == "cifar10"


def test_a_copy_goes_to_a_file_or_into_a_folder(tmp_path):
    assert run(["recipes", "cp", "cifar10", "mine.toml"]) == 0
    (tmp_path / "folder").mkdir()
    assert run(["recipes", "cp", "cifar10", "folder"]) == 0
    assert Path("mine.toml").read_bytes() == Path("folder/cifar10.toml").read_bytes()


def test_a_copy_never_replaces_a_file(capsys):
    Path("mine.toml").write_text("precious")
    assert run(["recipes", "cp", "cifar10", "mine.toml"]) == 1
    assert "mine.toml: exists already" in capsys.readouterr().err
    assert Path("mine.toml").read_text() == "precious"


def test_the_list_says_which_recipes_have_weights_and_where_their_picture_is(capsys):
    assert run(["recipes", "ls", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["recipes"]}
    assert "gtool sample image-gpt" in listed["prior/image-gpt"]["weights"]
    assert Path(listed["prior/image-gpt"]["picture"]).name == "image-gpt.webp"
    assert listed["transgan/celeba-64"]["weights"] is None
    assert listed["transgan/celeba-64"]["picture"] is None
    assert run(["recipes", "ls"]) == 0
    assert f"picture: {listed['transgan/scenes']['picture']}" in capsys.readouterr().out
