"""Names of files that want to be something else, and places where nothing can be read or written."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gtool import console
from gtool.cli import run
from gtool.errors import printable
from tests.eval.commands import save
from tests.helpers.painted import draw_photo, paint

# A line end and a command of GitHub, a colour, markup of rich, HTML and Markdown, text that runs backwards, no UTF-8.
HOSTILE = os.fsdecode(b"a\n::error::b\r\x1b[31m[bold]<img src=x>|`c`\xe2\x80\xae##[error]d\xff")
SHOWN = printable(HOSTILE)


def assert_harmless(text: str) -> None:
    """No line of a log is a command, and nothing steers the terminal."""
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "##[" not in text
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
    text.encode()


def test_what_is_shown_of_a_name_is_one_harmless_line():
    assert SHOWN == r"a\n::error::b\r\x1b[31m[bold]<img src=x>|`c`\u202e##\x5berror]d\udcff"
    assert printable("::error::a") == r":\x3aerror::a"
    assert printable("  ##vso[task]") == r"  ##vso\x5btask]"
    assert printable("a::b [bold] é 画") == "a::b [bold] é 画"


def test_logs_and_results_are_harmless(capsys):
    draw_photo(f"{HOSTILE}.png")
    draw_photo("::warning::b.png")
    Path(f"{HOSTILE}2.jpg").write_text("no photo")
    assert paint(".", "--svg", "svg/", "--max-strokes", 3) == 1
    shown = capsys.readouterr()
    assert_harmless(shown.out)
    assert_harmless(shown.err)
    assert f"{SHOWN}-painted.png" in shown.out.splitlines()
    assert f"warning: {SHOWN}2.jpg: no image of a known format" in shown.err.splitlines()
    svg = Path("svg", f"{HOSTILE}-painted.svg").read_text(encoding="ascii")
    assert "error" not in svg  # no name is written into it
    ElementTree.fromstring(svg)


def test_tables_show_names_as_they_are_typed(capsys):
    console.table(["name"], [[HOSTILE], ["[bold]a"]], title=HOSTILE)
    shown = capsys.readouterr().out
    assert_harmless(shown)
    assert shown.count(SHOWN) == 2
    assert "[bold]a" in shown


def test_json_says_names_in_full(capsys):
    draw_photo(f"{HOSTILE}.png")
    assert paint(f"{HOSTILE}.png", "--max-strokes", 3, "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["pictures"][0]["in"] == f"{HOSTILE}.png"
    assert_harmless(shown.out + shown.err)


def test_pictures_say_names_as_they_are_shown(tiny_weights):
    Path(HOSTILE).mkdir()
    Image.fromarray(np.pad(np.zeros((20, 10), np.uint8), 9, constant_values=255)).save(f"{HOSTILE}/mark.png")
    draw_photo("photo.png")
    assert paint("photo.png", "--brush", f"./{HOSTILE}", "--max-strokes", 3) == 0
    with Image.open("photo-painted.png") as opened:
        assert opened.text["brush"] == f"{SHOWN}/"
    odd = HOSTILE[:-1]  # safetensors reads no name that is not UTF-8
    Path(odd).mkdir()
    weights = tiny_weights.rename(f"{odd}/{odd}.safetensors")
    assert run(["sample", str(weights), "-n", "2", "-o", f"{HOSTILE}.png", "--device", "cpu"]) == 0
    with Image.open(f"{HOSTILE}.png") as opened:
        assert opened.text["weights"] == f"{printable(odd)}/{printable(odd)}.safetensors"


def test_reports_are_harmless(capsys, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    images = np.random.RandomState(0).randint(0, 256, (6, 3, 32, 32), np.uint8)
    for name in ("one", "two"):
        save(Path(name) / HOSTILE, images)
    outputs = [word for kind in ("html", "xml", "md") for word in ("-o", f"r.{kind}")]
    sides = [f"one/{HOSTILE}", f"two/{HOSTILE}"]
    assert run(["eval", *sides, "--swd", "--max", "swd_32=1", "--device", "cpu", *outputs]) == 4
    shown = capsys.readouterr()
    assert_harmless(shown.out)
    commands = [line for line in shown.err.splitlines() if line.lstrip().startswith("::")]
    assert [line.partition("::swd")[0] for line in commands] == ["::error title=gtool eval"]
    assert_harmless("\n".join(line for line in shown.err.splitlines() if line not in commands))
    page, markdown = (Path(name).read_text(encoding="utf-8") for name in ("r.html", "r.md"))
    assert "<img src=x>" not in page + markdown
    assert "<img src=x>|" in "".join(ElementTree.parse("r.xml").getroot().itertext()) + str(
        [one.attrib for one in ElementTree.parse("r.xml").iter()]
    )
    for text in (page, markdown, Path("summary.md").read_text(encoding="utf-8")):
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if line.startswith("::")]


# Places.


def one_line(capsys) -> str:
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


@pytest.mark.parametrize(
    "arguments", ["paint", "paint a.jpg", "eval a b --rfd", "train transgan", "export a"]
)
def test_a_working_folder_that_is_gone_is_said(tmp_path, monkeypatch, capsys, arguments):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run(["--quiet", *arguments.split()]) == 1
    assert one_line(capsys) == "error: the working folder no longer exists; change to one that does"


def test_a_name_that_recipes_and_weights_cannot_hold_is_refused(tiny_weights, capsys):
    odd = os.fsdecode(b"a\xff")
    save(Path(odd), np.zeros((2, 3, 32, 32), np.uint8))
    for command in (
        ["train", "transgan", "--dataset", f"./{odd}"],
        ["train", "transgan", "--out", odd],
        ["export", str(tiny_weights), "-o", f"{odd}.pt2"],
    ):
        assert run(command) == 1
        assert one_line(capsys).endswith(
            "its name is not UTF-8, and recipes and weights can hold no other; rename it"
        )


def test_too_little_address_space_is_said():
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
    code += "from gtool.cli import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", "transgan", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "error: this process may not use the memory that PyTorch needs: raise its limit, `ulimit -v`"
    assert (done.returncode, done.stderr.splitlines()) == (1, [said])


def test_without_a_home_folder_all_but_the_cache_works(monkeypatch, capsys):
    def unknown(uid):
        raise KeyError(uid)

    for variable in ("HOME", "GTOOL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    draw_photo("photo.png")
    assert paint("photo.png", "--max-strokes", 3) == 0
    capsys.readouterr()
    assert run(["doctor"]) == 1
    assert "no home folder is known; set HOME, or GTOOL_CACHE" in one_line(capsys)


@pytest.mark.parametrize("place", ["none.txt/a.png", "/proc/none/a.png"])
def test_an_output_that_cannot_be_made_is_said(tiny_weights, capsys, place):
    draw_photo("photo.png")
    Path("none.txt").touch()
    assert run(["--quiet", "paint", "photo.png", "--method", "random", "-o", place]) == 1
    assert f"error: {place}: cannot be written: " in one_line(capsys)
    assert run(["--quiet", "sample", str(tiny_weights), "-n", "1", "-o", place, "--device", "cpu"]) == 1
    assert f"error: {place}: cannot be written: " in one_line(capsys)


def test_a_folder_for_outputs_is_made(tiny_weights):
    draw_photo("photo.png")
    assert paint("photo.png", "--max-strokes", 3, "-o", "new/one/a.png") == 0
    assert run(["sample", str(tiny_weights), "-n", "1", "-o", "new/two/a.png", "--device", "cpu"]) == 0
    assert Path("new/one/a.png").is_file()
    assert Path("new/two/a.png").is_file()


@pytest.mark.parametrize(
    ("redirected", "said"),
    [
        (">/dev/full", "error: output: No space left on device"),
        (">&-", "error: stdout is closed: there is nowhere to print results; redirect it to /dev/null"),
    ],
)
@pytest.mark.parametrize("arguments", ["--version", "recipes ls --json", "paint --help"])
def test_a_stdout_that_takes_nothing_is_said(redirected, said, arguments):
    command = f"exec {sys.executable} -m gtool --quiet {arguments} {redirected}"
    command = command.replace("--quiet --version", "--version")
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (1, [said])
