"""What a `gtool eval` command line asks for, checked and completed before torch is imported."""

import os
from dataclasses import fields, replace
from pathlib import Path

from gtool import console
from gtool.data.names import ARCHIVES, find_dataset
from gtool.errors import CheckpointError, RecipeError, did_you_mean
from gtool.eval.gates import DIAGNOSTICS, parse_gates
from gtool.eval.options import EvalOptions
from gtool.eval.report.files import SUFFIXES
from gtool.eval.report.record import read_baseline
from gtool.eval.verdicts import require_numbers
from gtool.flags import flag_name
from gtool.io import run_folder
from gtool.metrics.features.published import MODES, check_statistics
from gtool.metrics.registry import METRICS, metrics_of
from gtool.models.description import read_description

WITHOUT_WEIGHTS = ("rfd", "swd")
DINOV2_SIZES = ("vit-s-14", "vit-b-14", "vit-l-14")


def find_target(target: str | None) -> tuple[Path | None, str | None]:
    """Return the weights, or the folder (or archive) of images, that a word means; None is the newest run.

    Raises:
        CheckpointError: it means nothing.
    """
    if target is not None:
        path, name = Path(target).expanduser(), str(target)
        is_run = (path / "recipe.toml").is_file() or any(path.glob("weights-*.safetensors"))
        if (path.is_dir() and not is_run) or path.suffix.lower() in ARCHIVES:
            # What lies here is scored, even where $GTOOL_DATA knows a set of that name.
            return None, name if find_dataset(name).path == path else f".{os.sep}{name}"
    return run_folder.find_weights(target), None


def check(options: EvalOptions) -> EvalOptions:
    """Fill in the defaults and refuse what cannot work before anything is loaded.

    Raises:
        RecipeError: options that do not go together, or mean nothing.
        CheckpointError, DataError: files that are not there, or cannot be used.
    """
    options = replace(options, gates=parse_gates(options.maximum, options.minimum, options.max_regress))
    if options.other is not None and options.reference is not None:
        raise RecipeError("a second folder and --reference both say what to compare with; give one")
    if options.mode not in MODES:
        raise RecipeError(f"--mode {options.mode}: unknown{did_you_mean(options.mode, MODES)}")
    if options.dinov2 not in DINOV2_SIZES:
        raise RecipeError(f"--dinov2 {options.dinov2}: unknown{did_you_mean(options.dinov2, DINOV2_SIZES)}")
    for name in ("weights", "clip_weights", "clip_large_weights", "dinov2_weights"):
        if (path := getattr(options, name)) is not None and not path.is_file():
            raise CheckpointError(f"{path}: no such file ({flag_name(name)})")
    wanted = [gate.metric for gate in options.gates]
    _check_outputs(options)
    if options.baseline is not None:
        baseline = read_baseline(options.baseline)
        regressions = [gate for gate in options.gates if gate.kind == "max_regress"]
        require_numbers(regressions, baseline, str(options.baseline))
        if not (wanted or options.metrics or options.diagnostics):
            wanted = list(baseline.get("metrics", {}))
    unnamed = False
    if not options.only_reference:
        # Gates ask for what they are about.
        metrics = {*options.metrics, *metrics_of(wanted)}
        diagnostics = {*options.diagnostics, *(name.split(".")[0] for name in wanted)}
        unnamed = not metrics and not diagnostics & DIAGNOSTICS.keys()
        options = replace(
            options,
            metrics=WITHOUT_WEIGHTS if unnamed else tuple(name for name in METRICS if name in metrics),
            diagnostics=tuple(name for name in DIAGNOSTICS if name in diagnostics),
            reference=options.reference if options.other is None else str(options.other),
            other=None,
        )
        _check_together(options)
    else:
        _check_used(options, has_model=False)
    _check_reference(options)
    if unnamed:  # last: a refusal stays one line
        console.notice("no metric was named: rfd and swd, which need no weights (--fid and --kid need them)")
    return options


def _check_outputs(options: EvalOptions) -> None:
    """Refuse files that could not be written in the end, and regressions without a baseline."""
    relative = [gate for gate in options.gates if gate.kind == "max_regress"]
    if relative and options.baseline is None:
        raise RecipeError(f"{relative[0].flag}: worse than what? Name a --baseline")
    for path in options.outputs:
        if path.suffix.lower() not in SUFFIXES:
            raise RecipeError(f"-o {path}: the suffix says what is written: {', '.join(SUFFIXES)}")
    if options.export_reference is not None and options.export_reference.suffix.lower() != ".npz":
        raise RecipeError(f"--export-reference {options.export_reference}: statistics are an .npz file")
    named = [*options.outputs, *filter(None, (options.gitlab_metrics, options.export_reference))]
    for path in named:
        there = next(folder for folder in path.absolute().parents if folder.exists())
        if path.is_dir() or not there.is_dir():
            why = "is a folder; name a file in it" if path.is_dir() else f"{there} is no folder"
            raise CheckpointError(f"{path}: {why}")
        if named.count(path) > 1:
            raise RecipeError(f"{path}: named twice")
        if options.baseline is not None and options.baseline.absolute() == path.absolute():
            raise RecipeError(
                f"-o {path}: is the baseline, which a worse result would replace; write another file, and copy it "
                "when the gates are met"
            )


def _check_together(options: EvalOptions) -> None:
    """Refuse what the target cannot do, and options that have no effect on it."""
    asked = [*options.diagnostics, *options.paired]
    if asked and (options.num_processes or 1) > 1:
        raise RecipeError(f"{flag_name(asked[0])} is computed by one process; leave out --num-processes")
    if options.export_reference is not None and not _uses(options, "inception"):
        raise RecipeError(
            "--export-reference writes Inception statistics: give --fid too, or --reference and nothing to score"
        )
    weights, folder = find_target(options.target)
    if weights is not None:
        read_description(weights)  # refused before torch is imported
    if weights is None and (of_models := [name for name in options.diagnostics if name != "copies"]):
        raise RecipeError(f"{folder}: {flag_name(of_models[0])} needs a model; name a run or weights")
    for name in {"copies", "per_class"} & {*options.diagnostics} if options.against_statistics else ():
        raise RecipeError(
            f"{flag_name(name)}: needs the images themselves, and {options.reference} holds none"
        )
    if options.paired and (options.metrics != options.paired or options.diagnostics):
        raise RecipeError("metrics of pairs go with no other metric; give them alone")
    if options.paired and (folder is None or options.reference is None or options.against_statistics):
        flag = flag_name(options.paired[0])
        raise RecipeError(f"{flag} compares two folders: gtool eval PICTURES ORIGINALS {flag}")
    if folder is not None and options.reference is None and options.needs_reference:
        raise RecipeError(f"{folder}: a folder is compared with another; name it second, or --reference NAME")
    _check_used(options, has_model=weights is not None)


def _check_used(options: EvalOptions, has_model: bool) -> None:
    """Refuse options that nothing asked for has a use for, so that nobody believes they had an effect."""
    inception = options.only_reference or _uses(options, "inception", "logits")
    clip, clip_large, dinov2 = (_uses(options, name) for name in ("clip", "clip_large", "dinov2"))
    networks = inception or clip or clip_large or dinov2
    compares = (bool(options.metrics) and options.needs_reference) or bool(
        {"reconstruction", "copies", "per_class"} & {*options.diagnostics}
    )
    compares = compares or options.only_reference
    named = (compares and options.reference is not None) and not options.against_statistics
    has_folder = named or not (has_model or options.only_reference)
    gates = bool(options.gates)
    used = {
        "num": (not options.paired, "pairs are all compared"),
        "seed": (not options.paired, "nothing is drawn where pairs are compared"),
        "mode": (inception, "no score that is asked for takes Inception"),
        "weights": (inception, "no score that is asked for takes Inception"),
        "clip_weights": (clip, "only --clip-fid takes CLIP ViT-B/32"),
        "clip_large_weights": (clip_large, "only --cmmd takes CLIP ViT-L/14"),
        "dinov2": (dinov2, "no score that is asked for takes DINOv2"),
        "dinov2_weights": (dinov2, "no score that is asked for takes DINOv2"),
        "preview": (networks and not options.export_reference, "only scores of downloaded networks have one"),
        "reference": (compares, "nothing that is asked for is compared with real images"),
        "split": (compares and not options.paired, "no data set is compared with"),
        "resolution": (has_folder or compares, "no image is resized"),
        "fit": (has_folder, "no images are named that could be squeezed"),
        "strict": (has_folder, "no folder of images is named"),
        "skip_bad": (has_folder, "no folder of images is named"),
        "precision": (has_model, "only what a model computes has one; scores are always fp32"),
        "exit_zero": (gates, "there is no gate"),
    }
    for field in fields(options):
        is_used, why = used.get(field.name, (True, ""))
        if is_used or getattr(options, field.name) == field.default:
            continue
        if field.name in ("reference", "precision", "exit_zero"):  # what pipelines give to every call
            what = (
                f"{flag_name(field.name)} {options.reference or ''}"
                if field.name == "reference"
                else flag_name(field.name)
            )
            console.notice(f"{what} has no effect: {why}")
        else:
            raise RecipeError(f"{flag_name(field.name)} would have no effect: {why}; leave it out")


def _uses(options: EvalOptions, *inputs: str) -> bool:
    """Say whether a metric takes such features."""
    return any(METRICS[name].inputs in inputs for name in options.metrics)


def _check_reference(options: EvalOptions) -> None:
    """Refuse a reference that is not there, or is not enough for what is asked of it."""
    if options.reference is None:
        return
    if not options.against_statistics:
        find_dataset(options.reference)  # raises when the name leads nowhere
        return
    check_statistics(options.reference, options.mode)
    others = [METRICS[name].flag for name in options.metrics if not METRICS[name].takes_statistics]
    if others:
        raise RecipeError(
            f"{', '.join(others)}: needs the images of the reference, and {options.reference} holds their mean and "
            "covariance only; score --fid against it, or name the images"
        )
    for name in ("split", "export_reference"):
        if getattr(options, name) is not None:
            raise RecipeError(f"{flag_name(name)}: {options.reference} is statistics already")
