"""Command lines of every verb of every family, with recipes that take seconds; for GPUs, real and simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gtool.cli import run
from gtool.config.recipe import to_toml
from gtool.config.schema import Recipe
from tests.helpers import tiny

PALETTE = ("model.kind=palette", "model.palette_size=16")
SHORT = ("train.precision=auto", "train.kimg=0.016", "train.snapshot_kimg=0.008")
RECIPES = {
    "transgan": lambda: tiny.tiny_recipe("augment.policy='ada,cutout'", "augment.target=0.6", *SHORT),
    "gansformer": lambda: tiny.tiny_gansformer("loss.path_length=2.0", "loss.style_mixing=0.9", *SHORT),
    "vqgan": lambda: tiny.tiny_tokenizer(*SHORT),
    "prior": lambda: tiny.tiny_prior("prior.condition_dropout=0.1", *SHORT),
    "image-gpt": lambda: tiny.tiny_prior("model.prior.kind=image-gpt", "data.condition=none", *SHORT),
    "paint-transformer": lambda: tiny.tiny_strokes("strokes.pixel=1.0", *SHORT),
}
FURTHER = {  # of a trained `run`
    "transgan": [
        "sample run --num 4 -o grid.png",
        "sample run --num 2 --interpolate 2 --animate loop.webp -o loop.png",
        "eval run --num 16 -o scores.json",
        "export run -o generator.safetensors",
    ],
    "gansformer": [
        "sample run --num 4 --psi 0.7 -o grid.png",
        "sample run --num 2 --psi-sweep 0,1 -o psi.png",
        "sample run --num 2 --attention -o attention.png",
        "sample run --mix 0,1 -o mix.png",
        "sample run --num 2 --interpolate 2 --space w -o path.png",
        "sample run --noise-variation -o noise.png",
        "eval run --num 16",
        "eval run --attention --num 16",
        "export run -o generator.safetensors",
    ],
    "vqgan": ["eval run --reconstruction --num 6", "export run -o tokenizer.safetensors"],
    "prior": [
        "sample run --num 2 -o grid.png",
        "sample run --segmentation map.png --num 2 --size 32x16 -o wide.png",
        "sample run --complete photo.png --segmentation map.png --num 2 -o whole.png",
        "sample run --num 2 --animate codes.webp -o codes.png",
        "eval run --num 16",
        "eval run --map-agreement --num 16",
        "eval run --reconstruction --num 6",
        "export run -o prior.safetensors",
    ],
    "image-gpt": ["sample run --complete photo.png --num 2 -o whole.png", "eval run --num 16"],
    "paint-transformer": [
        "paint photo.png --weights run -o painted.png --svg a.svg --strokes a.json --animate a.webp --frames 4",
        "paint photo.png -o colours.png --colors 4 --scale 2 --select decision",
        "paint photo.png -o greedy.png --method greedy --max-strokes 20",
        "paint photo.png -o random.png --method random --max-strokes 20 --brush dry",
        "paint photos -o paintings",
        "paint --from-strokes a.json -o again.png --max-side 64",
        "eval photos photos --paired",
        "export run -o predictor.safetensors",
    ],
}


def commands(family: str) -> list[list[str]]:
    """Return what is typed in the working folder, which gets what it reads: recipes and pictures."""
    y, x = np.mgrid[0:40, 0:56]
    photo = np.stack([x % 256, y % 256, x * y // 97 % 256], axis=-1).astype(np.uint8)
    Path("photos").mkdir()
    for name in ("photo.png", "photos/one.png", "photos/two.png"):
        Image.fromarray(photo).save(name)
    Image.fromarray((x[:16, :32] // 4).astype(np.uint8)).save("map.png")
    _write(RECIPES[family](), "tiny.toml")
    model = "prior" if family == "image-gpt" else family
    train, first = f"train {model} --recipe tiny.toml --out run", []
    if model == "prior":
        _write(tiny.tiny_tokenizer(*(PALETTE if family == "image-gpt" else ()), *SHORT), "codes.toml")
        first = ["train vqgan --recipe codes.toml --out codes"]
        train += " --tokenizer codes"
    lines = [
        *first,
        f"{train} --dry-run",
        train,
        f"train {model} --resume run --kimg 0.024",
        *FURTHER[family],
    ]
    return [line.split() for line in lines]


def failed(family: str, device: str) -> dict[str, str]:
    """Run all command lines of a family; returns those that did not end well, and why."""
    found = {}
    for words in commands(family):
        try:
            status = run([*words, "--device", device] if words[0] != "export" else words)
            why = str(status) if status else ""
        except BaseException as bad:
            why = f"{type(bad).__name__}: {bad}"
        if why:
            found[" ".join(words)] = why
    return found


def _write(recipe: Recipe, name: str) -> None:
    Path(name).write_text(to_toml(recipe), encoding="utf-8")
