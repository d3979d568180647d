"""Gates of `gtool eval`: what a score must reach, or by how much it may fall behind a baseline.

A name is a score (`fid`), a number beside its value (`rfd.ratio`, `fid.high`), or one of a diagnostic
(`reconstruction.psnr`).
Gates are parsed before anything is scored; verdicts.py judges them. Nothing heavy is imported here.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gtool import console
from gtool.errors import RecipeError, did_you_mean
from gtool.metrics.registry import SCORES

# Diagnostics of models -> their help.
DIAGNOSTICS = {
    "attention": "How well attention segments the objects of the built-in scenes",
    "reconstruction": "Reconstructions of a tokenizer against the originals, and the use of its codes",
    "map_agreement": "Agreement of a prior's images of scenes with their label maps",
    "copies": "Whether images repeat training images, and which",
    "per_class": "rfd and swd of each class of a conditional model",
}
RECONSTRUCTION = ("psnr", "ssim", "l1", "rfd", "rfd_ratio", "codes_used", "perplexity")
# Numbers of diagnostics, besides those of scores, of which more is better: shares of objects, pixels and codes.
HIGHER_IN_DIAGNOSTICS = {"codes_used", "perplexity", "pixels", "mean_iou", "attention", "margin"}
LEVELS = ("error", "warn")


@dataclass(frozen=True)
class Gate:
    """One condition. `bound` is the limit itself or, of a regression, how much worse than the baseline is allowed."""

    metric: str
    kind: str  # max, min, max_regress
    bound: float
    is_relative: bool
    level: str
    typed: str  # as on the command line

    @property
    def flag(self) -> str:
        return f"--{self.kind.replace('_', '-')} {self.typed}"


def parse_gates(maxima: Sequence[str], minima: Sequence[str], regressions: Sequence[str]) -> tuple[Gate, ...]:
    """Parse `fid=20`, `kid=0.01:warn`, and `fid=5%` of regressions; RecipeError for what can never be met."""
    typed = {"max": maxima, "min": minima, "max_regress": regressions}
    return tuple(_parse(kind, word) for kind, words in typed.items() for word in words)


def _parse(kind: str, word: str) -> Gate:
    flag = f"--{kind.replace('_', '-')} {word}"
    found = re.fullmatch(r"([^=]+)=([^:]+)(?::(.*))?", word)
    if found is None:
        form = "METRIC=5% or METRIC=0.3" if kind == "max_regress" else "METRIC=NUMBER"
        raise RecipeError(f"{flag}: write {form}, and :warn behind it where it is only a warning")
    metric, number = found[1].strip().replace("-", "_"), found[2].strip()
    level = "error" if found[3] is None else found[3]
    if level not in LEVELS:
        raise RecipeError(f"{flag}: `:{level}` is no level{did_you_mean(level, LEVELS)}")
    _require_known(metric, flag)
    is_relative = number.endswith("%")
    try:
        bound = float(number.removesuffix("%"))
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise RecipeError(f"{flag}: `{number}` is no number")
    if is_relative and kind != "max_regress":
        raise RecipeError(f"{flag}: a share of what? Percent goes with --max-regress")
    if kind == "max_regress" and bound < 0:
        raise RecipeError(f"{flag}: how much worse a score may be is not negative")
    if kind != "max_regress" and (score := SCORES.get(metric)):
        if not score.low <= bound <= score.high and (kind == "max") == (bound < score.low):
            edge = f"below {score.low:g}" if kind == "max" else f"above {score.high:g}"
            raise RecipeError(f"{flag}: {metric} is never {edge}, so this can never be met")
        if (kind == "max") == score.higher_is_better:
            better, usual = ("more", "--min") if score.higher_is_better else ("less", "--max")
            console.notice(f"{flag}: {better} is better of {metric}; {usual} is the usual gate")
    return Gate(metric, kind, bound / 100 if is_relative else bound, is_relative, level, word)


def _require_known(metric: str, flag: str) -> None:
    head, dot, tail = metric.partition(".")
    if head in DIAGNOSTICS:
        if not dot:
            raise RecipeError(f"{flag}: {head} has many numbers; name one: `{head}.NAME=...`")
        known: tuple[str, ...] = RECONSTRUCTION if head == "reconstruction" else (tail,)
    elif head in SCORES:
        known = ("value", *SCORES[head].numbers)
    else:
        levels = [name for name in SCORES if name.startswith(f"{head}_")]
        hint = f"; name one of {', '.join(levels)}" if len(levels) > 1 else ""
        hint = hint or did_you_mean(head.lower(), (*SCORES, *DIAGNOSTICS))
        raise RecipeError(f"{flag}: unknown metric {head}{hint}")
    if dot and tail not in known:
        raise RecipeError(f"{flag}: {head} has no number {tail}{did_you_mean(tail, known)}")


def is_better_higher(name: str) -> bool:
    """Say whether more is better of a score (`fid`), or of a number in a diagnostic (`reconstruction.psnr`)."""
    for end in (".value", ".low", ".high"):
        name = name.removesuffix(end)
    _, dot, tail = name.rpartition(".")
    score = SCORES.get(tail)
    return (score is not None and score.higher_is_better) or bool(dot and tail in HIGHER_IN_DIAGNOSTICS)
