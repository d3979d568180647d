"""Every option of every verb is carried out, refused in one line, or said to have no effect: one table of all of them.

An option without a row fails, and so does a row without its option.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from gtool.cli import app, run
from tests.helpers.painted import draw_photo

TESTS = Path(__file__).parents[1]
PHOTO = "photo.png --method random --max-strokes 3"
# Verb, option: a command line and what it answers where the option means nothing there; or the test that shows what
# the option does.
ACTS: dict[str, dict[str, tuple[str, str] | str]] = {
    "": {
        "--version": "golden/test_statuses.py",
        "--quiet": "cli/test_odd_names.py",
        "--debug": ("--debug sample none.safetensors", "none.safetensors: no such run or file"),
        "--install-completion": "cli/test_options.py",  # Typer's own
        "--show-completion": "cli/test_options.py",
    },
    "train": {
        "--dataset": ("transgan --dataset ./none", "./none"),
        "--finetune": ("transgan --finetune ./none", "--finetune is for paint-transformer"),
        "--weights": ("vqgan --weights none.safetensors", "vqgan cannot begin with weights"),
        "--tokenizer": ("transgan --tokenizer none", "--tokenizer: means nothing for transgan"),
        "--recipe": ("transgan --recipe none", "none"),
        "--set": ("transgan --set train.kimgs=1", "did you mean"),
        "--resume": ("transgan --resume none", "none: no such run folder"),
        "--kimg": ("transgan --kimg -1", "train.kimg"),
        "--minutes": ("transgan --minutes -1", "train.minutes"),
        "--batch-size": ("transgan --batch-size 0", "train.batch_size"),
        "--seed": ("transgan --seed -1", "train.seed"),
        "--device": ("transgan --device tpu", "device `tpu` is unknown"),
        "--precision": ("transgan --precision fp8", "fp8"),
        "--num-processes": ("transgan --num-processes 0", "--num-processes"),
        "--timeout": "hosts/test_processes.py",
        "--out": "train/test_train.py",
        "--tracker": ("transgan --tracker mlflow", "use tensorboard, trackio, wandb"),
        "--dry-run": "train/test_train.py",
        "--json": "train/test_train.py",
    },
    "eval": {
        "--fid": "eval/test_eval.py",
        "--kid": "eval/test_eval.py",
        "--is": "eval/test_eval.py",
        "--pr": "eval/test_eval.py",
        "--density": "eval/test_eval.py",
        "--fid-infinity": "eval/test_eval.py",
        "--clip-fid": "eval/test_clip_fid.py",
        "--fd-dinov2": "eval/test_dinov2.py",
        "--cmmd": ("one --cmmd", "a folder is compared with another"),
        "--mind": ("one --mind", "a folder is compared with another"),
        "--rfd": ("one --rfd", "a folder is compared with another"),
        "--swd": ("one --swd", "a folder is compared with another"),
        "--paired": ("one two --paired --rfd", "metrics of pairs go with no other metric"),
        "--lpips": ("one two --lpips --rfd", "metrics of pairs go with no other metric"),
        "--attention": ("one two --attention", "--attention needs a model"),
        "--reconstruction": ("one two --reconstruction", "--reconstruction needs a model"),
        "--map-agreement": ("one two --map-agreement", "--map-agreement needs a model"),
        "--copies": "eval/test_copies.py",
        "--per-class": "eval/test_per_class.py",
        "--num": ("one two --num 1", "--num"),
        "--seed": "eval/test_eval.py",
        "--resolution": ("one two --resolution 8", "--resolution"),
        "--fit": "eval/test_image_checks.py",
        "--strict": "eval/test_image_checks.py",
        "--skip-bad": ("one two --skip-bad -1", "--skip-bad"),
        "--reference": ("one two --reference two", "give one"),
        "--split": "eval/test_diagnostics.py",
        "--mode": ("one two --mode clear", "did you mean `clean`?"),
        "--weights": ("one two --fid --weights none.pth", "none.pth: no such file (--weights)"),
        "--clip-weights": ("one two --clip-weights none.pth", "none.pth: no such file (--clip-weights)"),
        "--clip-large-weights": (
            "one two --clip-large-weights no.pth",
            "no.pth: no such file (--clip-large-weights)",
        ),
        "--dinov2": "eval/test_dinov2.py",
        "--dinov2-weights": (
            "one two --dinov2-weights none.pth",
            "none.pth: no such file (--dinov2-weights)",
        ),
        "--export-reference": ("one two --rfd --export-reference a.npz", "give --fid too"),
        "--max": ("one two --max fidd=20", "fidd"),
        "--min": ("one two --min rfd=low", "rfd=low"),
        "--baseline": ("one two --baseline none.json", "none.json: cannot be read"),
        "--max-regress": ("one two --max-regress rfd=5%", "Name a --baseline"),
        "--exit-zero": "eval/test_report.py",
        "--output": ("one two -o result.pdf", "the suffix says what is written"),
        "--gitlab-metrics": ("one two -o a.md --gitlab-metrics a.md", "named twice"),
        "--json": "eval/commands.py",
        "--device": ("one two --rfd --device tpu", "device `tpu` is unknown"),
        "--precision": ("one two --precision fp8", "precision `fp8` does not exist"),
        "--preview": "eval/test_eval.py",
        "--batch-size": ("one two --batch-size 0", "--batch-size"),
        "--num-processes": ("one two --paired --num-processes 2", "is computed by one process"),
        "--timeout": ("one two --rfd --timeout 0", "--timeout"),
    },
    "sample": {
        "--num": ("tiny.safetensors --num 2 --seeds 1", "--num and --seeds exclude each other"),
        "--seeds": ("tiny.safetensors --mix 0,1 --seeds 3", "leave --seeds and --num out"),
        "--seed": "sample/test_sample.py",
        "--class": ("tiny.safetensors --class 1", "was trained without classes"),
        "--legend": ("tiny.safetensors --legend", "was trained with neither classes nor label maps"),
        "--interpolate": ("tiny.safetensors --interpolate 3 --num 1", "at least two images"),
        "--psi": ("tiny.safetensors --psi 0.5", "--psi: tiny.safetensors: transgan has no latent components"),
        "--psi-sweep": ("tiny.safetensors --psi 0.5 --psi-sweep 0,1", "exclude each other"),
        "--attention": ("tiny.safetensors --attention", "has no attention to latent components"),
        "--mix": ("tiny.safetensors --mix 0-2", "needs --components or --layers"),
        "--components": ("tiny.safetensors --components 0", "add --mix 3,8 or --interpolate 12"),
        "--layers": ("tiny.safetensors --layers 0", "add --mix 3,8"),
        "--space": ("tiny.safetensors --space z", "add --interpolate 12"),
        "--noise-variation": ("tiny.safetensors --noise-variation -n 1", "has no noise inputs"),
        "--project": ("tiny.safetensors --project none.png", "--project none.png: no such file"),
        "--latents": ("tiny.safetensors --latents tiny.safetensors", "tiny.safetensors: holds no latent"),
        "--segmentation": ("tiny.safetensors --segmentation a.png", "transgan samples from latents"),
        "--depth": ("tiny.safetensors --depth a.png", "transgan samples from latents"),
        "--complete": ("tiny.safetensors --complete a.png", "transgan samples from latents"),
        "--mask": ("tiny.safetensors --complete a.png --mask b.png", "transgan samples from latents"),
        "--keep": ("tiny.safetensors --keep 0.5", "add --complete photo.png"),
        "--guidance": ("tiny.safetensors --guidance 2", "transgan samples from latents"),
        "--steps": ("tiny.safetensors --steps 4", "transgan samples from latents"),
        "--size": ("tiny.safetensors --size 32x32", "transgan samples from latents"),
        "--temperature": ("tiny.safetensors --temperature 1", "transgan samples from latents"),
        "--top-k": ("tiny.safetensors --top-k 3", "transgan samples from latents"),
        "--top-p": ("tiny.safetensors --top-p 1", "transgan samples from latents"),
        "--out": ("tiny.safetensors -o grid.jpg", "a grid ends in .png"),
        "--overwrite": ("tiny.safetensors -n 1 -o a.png --overwrite", "--overwrite has no effect"),
        "--animate": ("tiny.safetensors --animate a.webp -o all/", "makes one .png file"),
        "--fps": ("tiny.safetensors --interpolate 3 --fps 9", "add --animate FILE.webp"),
        "--columns": ("tiny.safetensors --columns 2 -o all/", "--columns is for grids"),
        "--scale": "sample/test_sample_components.py",
        "--json": "sample/test_sample.py",
        "--batch-size": "sample/test_sample.py",
        "--device": ("tiny.safetensors --device tpu", "device `tpu` is unknown"),
        "--precision": ("tiny.safetensors --precision fp8", "precision `fp8` does not exist"),
    },
    "paint": {
        "--brush": ("photo.png --brush flatt", "did you mean `flat`?"),
        "--detail": ("--from-strokes a.json --detail 1", "--detail is for painting a photo"),
        "--style": "paint/test_paint_styles.py",
        "--max-strokes": "paint/test_paint.py",
        "--min-stroke": "paint/test_paint_styles.py",
        "--max-stroke": "paint/test_paint_styles.py",
        "--method": ("--from-strokes a.json --method greedy", "--method is for painting a photo"),
        "--select": ("photo.png --method greedy --select gain", "--select is for --method predictor"),
        "--weights": ("photo.png --method greedy --weights a", "--weights is for --method predictor"),
        "--keep-all": ("--from-strokes a.json --keep-all", "--keep-all is for painting a photo"),
        "--seed": ("--from-strokes a.json --seed 0", "--seed is for painting a photo"),
        "--colors": "paint/test_paint_palette.py",
        "--palette": (f"{PHOTO} --palette none.toml", "none.toml: no such file"),
        "--opacity": "paint/test_paint.py",
        "--canvas-color": ("--from-strokes a.json --canvas-color auto", "auto needs a photo"),
        "--max-side": (f"{PHOTO} --max-side 99", "photo.png: 48x48 is not enlarged; --max-side is a maximum"),
        "--scale": ("--from-strokes a.json --scale 2", "--scale is for painting a photo"),
        "--animate": ("clip.mp4 --animate a.webp", "--animate is for pictures, not for videos"),
        "--fps": ("photo.png --fps 9", "--fps is for --animate FILE, or for a video"),
        "--frames": ("photo.png --frames 9", "--frames is for --animate FILE"),
        "--out": ("photo.png -o a.mp4", "a single picture"),
        "--svg": ("clip.mp4 --svg a.svg", "--svg is for pictures, not for videos"),
        "--plotter": "paint/test_plotter.py",
        "--strokes": ("clip.mp4 --strokes a.json", "--strokes is for pictures, not for videos"),
        "--from-strokes": ("photo.png --from-strokes a.json", "takes no photo"),
        "--force": ("photo.png --force -o photo.png", "is what is to be painted"),
        "--json": "paint/test_paint_outputs.py",
        "--device": ("photo.png --device tpu", "device `tpu` is unknown"),
        "--precision": (f"{PHOTO} --precision bf16", "--precision has no effect: no network paints"),
    },
    "export": {
        "--format": ("tiny.safetensors --format onnxx", "did you mean `onnx`?"),
        "--out": ("tiny.safetensors --format onnx -o a.pt2", "ends in .onnx"),
        "--half": ("none.safetensors --half --format onnx", "--half stores weights of gtool as safetensors"),
        "--from": ("none.pth --from transgan --format onnx", "makes a .safetensors file"),
        "--json": "export/test_export.py",
        "--repo": ("tiny.safetensors --repo me/my-model", "--repo is of --format hub"),
        "--private": ("tiny.safetensors --private", "--private is of --format hub"),
        "--dry-run": ("tiny.safetensors --dry-run", "--dry-run is of --format hub"),
    },
    "doctor": {"--json": "cli/test_doctor.py"},
    "recipes": {},
    "recipes ls": {"--json": "cli/test_odd_names.py"},
    "recipes show": {},
    "recipes cp": {},
}
ASKED = [
    pytest.param(verb, *row, id=f"{verb} {option}")
    for verb, options in ACTS.items()
    for option, row in options.items()
    if isinstance(row, tuple)
]


def options_of(command: Any, path: str = "") -> dict[str, list[Any]]:
    """The options of a command and of those below it, by the words that call it."""
    found = {path: [one for one in command.params if one.param_type_name == "option"]}
    for name, child in getattr(command, "commands", {}).items():
        found |= options_of(child, f"{path} {name}".strip())
    return found


OPTIONS = options_of(typer.main.get_command(app))


def test_every_option_has_a_row():
    assert {verb: [one.opts[0] for one in options] for verb, options in OPTIONS.items()} == {
        verb: list(options) for verb, options in ACTS.items()
    }


def test_what_an_option_does_is_shown_where_the_table_says():
    for verb, options in ACTS.items():
        names = {one.opts[0]: one.opts for one in OPTIONS[verb]}
        for option, row in options.items():
            if isinstance(row, str):
                text = (TESTS / row).read_text(encoding="utf-8")
                assert any(f'"{name}"' in text or f" {name}" in text for name in names[option]), (
                    verb,
                    option,
                )


@pytest.mark.parametrize(("verb", "arguments", "said"), ASKED)
def test_what_means_nothing_is_refused_or_said(tiny_weights, capsys, verb, arguments, said):
    for name in ("photo.png", "one/a.png", "two/a.png"):
        draw_photo(name)
    Path("clip.mp4").touch()
    status = run(shlex.split(f"{verb} {arguments}"))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if said in line], lines
    if "has no effect" in said or "not enlarged" in said:
        assert status == 0
    else:
        assert status in (1, 2)
        assert len(lines) == 1 or lines[-1].startswith("error: ")


def test_every_option_stands_in_a_panel_of_its_help_page():
    for verb, options in OPTIONS.items():
        loose = [one.opts[0] for one in options if verb and not getattr(one, "rich_help_panel", None)]
        assert loose == [], verb


@pytest.mark.parametrize("verb", ACTS)
def test_help_shows_no_types_of_python(verb, capsys):
    assert run([*verb.split(), "--help"]) == 0
    shown = capsys.readouterr().out.replace("runs/<model>-<dataset>-NNN", "")
    assert not re.findall(r"<[a-z]\w*(?:\[\w+\])?>", shown)
