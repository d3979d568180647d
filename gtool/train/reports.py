"""What a run leaves for people: grids, an animation, curves, the log, the line of a tick."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ConfigDict, TypeAdapter

from gtool import console
from gtool.config.schema import Recipe
from gtool.errors import CheckpointError, GToolError
from gtool.io.curves import Line, save_curves
from gtool.io.files import atomic_write
from gtool.io.pictures import grid, save_png
from gtool.io.run_folder import RunFolder
from gtool.io.video import save_animation
from gtool.reading import parse_json, read_bytes, reading
from gtool.train.loop import Tick

RECORD = TypeAdapter(dict[str, int | float], config=ConfigDict(strict=True))  # a line of the log
ANIMATION_FRAMES = 100  # at most: a long run is thinned out
# Titles of the panels of curves.png, and the records that each shows, scores first; * stands for anything.
PANELS = {
    "rfd": ["rfd", "rfd_floor"],
    "swd": ["swd_*"],
    "negative log-likelihood (nats per code)": ["nll", "nll_*", "unigram", "train_nll"],
    "PSNR of held-out images (dB)": ["psnr"],
    "codes in use": ["codes_used"],
    "error left": ["left", "left_*"],
    "losses of reconstruction": [
        "l1",
        "lpips",
        "gradients",
        "efficientnet",
        "quantizer_loss",
        "palette_error",
    ],
    "losses": ["discriminator_loss", "generator_loss", "reward", "known_*", "gain_decision"],
    "logits": ["real_logit", "fake_logit"],
    "penalties": ["penalty", "path_penalty"],
    "gradient norms": ["*grad_norm"],
    "augmentation": ["augment_p"],
}
LOGARITHMIC = ("rfd", "swd", "losses of reconstruction", "penalties", "gradient norms")  # panels


def cut_log(run: RunFolder, nimg: int) -> None:
    """Begin log.jsonl, or drop the lines of a resumed run after its state; without a state all of them."""
    kept = [line for line in read_log(run) if line["nimg"] <= nimg] if nimg else []
    with atomic_write(run.log) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def add_record(run: RunFolder, record: Mapping[str, Any]) -> None:
    """Append a line to log.jsonl, flushed at once."""
    with run.log.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def open_tracker(name: str, run: RunFolder, recipe: Recipe) -> Any:
    """Start one of `TRACKERS` for a run: events in the run folder, or a run of the project "gtool" with its recipe.

    Raises:
        GToolError: the tracker cannot start: no account, no network.
    """
    from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

    try:
        with redirect_stdout(sys.stderr):
            if name == "tensorboard":
                tracker: Any = TensorBoardTracker(name, logging_dir=str(run.path))
            elif name == "trackio":
                tracker = TrackioTracker("gtool", name=run.path.name)
            else:
                tracker = WandBTracker("gtool", dir=str(run.path), name=run.path.name)
            tracker.start()
            if name != "tensorboard":
                tracker.store_init_configuration(recipe.model_dump(mode="json", by_alias=True))
    except Exception as failed:  # of the library, whatever it raises
        reason = (str(failed).strip() or type(failed).__name__).splitlines()[0]
        raise GToolError(f"--tracker {name}: {reason}") from None
    return tracker


def read_log(run: RunFolder) -> list[dict[str, Any]]:
    """Return the records of a run; a line that a crash cut short, or that is no record, is left out."""
    records = []
    if run.log.is_file():
        with reading(run.log, "log", CheckpointError):
            lines = read_bytes(run.log).splitlines()
        for line in lines:
            with suppress(ValueError, RecursionError):
                record = RECORD.validate_python(parse_json(line))
                if type(record.get("nimg")) is int and "kimg" in record:
                    records.append(record)
    return records


def tick_record(state: Any, tick: Tick, scores: Mapping[str, float]) -> dict[str, Any]:
    """Return a tick as plain numbers for the log."""
    rates = [optimizer.param_groups[0]["lr"] for _, optimizer in state.optimizers.values()]
    return {
        "nimg": state.nimg,
        "kimg": round(state.nimg / 1000, 3),
        "steps": state.steps,
        "seconds": round(state.seconds, 2),
        "progress": round(state.progress, 5),
        "images_per_second": round(tick.images_per_second, 2),
        "learning_rate": rates[0] if rates else 0.0,
        **{name: round(value, 6) for name, value in tick.stats.items()},
        **scores,
    }


def tick_note(state: Any, tick: Tick, scores: Mapping[str, float]) -> str:
    """Return the part of a progress line that changes: where, how fast, how it is going."""
    note = f"{state.nimg / 1000:.1f} kimg  {tick.images_per_second:.0f} img/s"
    if "real_logit" in tick.stats:
        note += f"  D gap {tick.stats['real_logit'] - tick.stats['fake_logit']:+.2f}"
    elif "left" in tick.stats:
        note += f"  error left {tick.stats['left']:.3f}"
    return f"{note}  {score_note(scores)}" if scores else note


def score_note(scores: Mapping[str, float]) -> str:
    """Return scores as `rfd 12.3 (8.1x floor)`."""
    with_floor = [name for name in scores if f"{name}_floor" in scores]
    return "  ".join(
        f"{name} {scores[name]:.4g} ({scores[name] / scores[f'{name}_floor']:.1f}x floor)"
        for name in with_floor
    ) or "  ".join(f"{name} {value:.3f}" for name, value in scores.items())


def save_grid(
    run: RunFolder, name: str, images: np.ndarray, columns: int | None, text: Mapping[str, str]
) -> None:
    """Write uint8 (N, 3, R, R) as one picture in the run's samples folder, with texts in its metadata."""
    save_png(run.samples / f"{name}.png", grid(images, columns=columns), dict(text))


def save_animation_of_run(run: RunFolder, fps: float) -> Path | None:
    """Write training.webp from the grids of the run, first to last; None when there are fewer than two.

    Grids that cannot be read any more are named and left out.
    """
    grids = [path for path in sorted(run.samples.glob("[0-9]*.png")) if _is_whole(path)]
    if len(grids) < 2:
        return None
    stride = -(-len(grids) // ANIMATION_FRAMES)
    chosen = [*grids[:-1:stride], grids[-1]]

    def frames() -> Iterable[np.ndarray]:
        for path in chosen:
            with Image.open(path) as opened:
                frame = np.asarray(opened.convert("RGB"))
            # The result stays long enough to be looked at.
            yield from [frame] * (1 if path is not chosen[-1] else max(1, round(2 * fps)))

    save_animation(run.path / "training.webp", frames(), fps)
    return run.path / "training.webp"


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as opened:
            opened.load()
    except (OSError, ValueError, SyntaxError) as bad:  # what Pillow raises for damaged files
        console.warning(f"{path}: left out of the animation: {bad}")
        return False
    return True


def save_curves_of_run(run: RunFolder) -> Path | None:
    """Write curves.png: scores, losses and the like, as far as the run has any; None when nothing has been logged."""
    panels = panels_of(read_log(run))
    if not panels:
        return None
    save_curves(run.path / "curves.png", panels, log=LOGARITHMIC)
    return run.path / "curves.png"


def panels_of(records: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Line]]:
    """Return the panels that a log fills, each with its lines over kimg by their names."""
    known = dict.fromkeys(name for record in records for name in record)
    panels: dict[str, dict[str, Line]] = {}
    for title, patterns in PANELS.items():
        for name in (name for pattern in patterns for name in known if fnmatchcase(name, pattern)):
            values = [(record["kimg"], record[name]) for record in records if name in record]
            panels.setdefault(title, {})[name] = [x for x, _ in values], [y for _, y in values]
    return panels
