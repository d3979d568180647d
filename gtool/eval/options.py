"""What is asked of `gtool eval`: the command line as typed, and as understood; nothing heavy is imported here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gtool import console
from gtool.data.names import ARCHIVES, find_dataset
from gtool.errors import CheckpointError, RecipeError, did_you_mean
from gtool.eval import paired
from gtool.eval.gates import scores_of
from gtool.eval.report.outputs import Demands, Plan, require_place, understand_demands
from gtool.io.run_folder import find_weights
from gtool.metrics.features.published import check_statistics, is_statistics, refuse_beyond_statistics
from gtool.metrics.registry import METRICS, metrics_of

WITHOUT_WEIGHTS = ("rfd", "swd")
MODES = ("clean", "legacy_tensorflow", "legacy_pytorch")
# What looks into a model: the module that scores it and prints its table; whether it compares with a data set.
LOOKS = {
    "attention": ("gtool.eval.diagnostics.attention", False),
    "reconstruction": ("gtool.eval.diagnostics.reconstruction", True),
    "map_agreement": ("gtool.eval.diagnostics.map_agreement", False),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line of `gtool eval`, as typed."""

    target: str | None = None  # run, weights or folder; None = the newest run
    other: str | None = None  # a second folder, in place of --reference
    metrics: tuple[str, ...] = ()
    attention: bool = False
    reconstruction: bool = False
    map_agreement: bool = False
    paired: bool = False
    lpips_vgg: Path | None = None
    lpips_heads: Path | None = None
    num: int | None = None
    reference: str | None = None
    split: str | None = None
    mode: str = "clean"
    weights: Path | None = None
    clip_weights: Path | None = None
    seed: int = 0
    preview: bool = False
    batch_size: int = 32
    resolution: int | None = None
    device: str = "auto"
    precision: str = "auto"
    num_processes: int | None = None
    export_reference: Path | None = None
    fit: bool = False
    strict: bool = False
    skip_bad: int = 0
    as_json: bool = False
    demands: Demands = field(default_factory=Demands)

    @property
    def looks(self) -> list[str]:
        """What is asked for besides metrics, by its name in the record."""
        return [name for name in LOOKS if getattr(self, name)]

    @property
    def only_reference(self) -> bool:
        """Whether nothing is scored: a reference is named, and where its statistics go, and nothing else."""
        asked = self.metrics or self.looks or self.paired
        named = self.reference is not None and self.export_reference is not None
        return named and self.target is None and not asked and self.demands == Demands()

    @property
    def needs_reference(self) -> bool:
        """Whether anything real takes part; of a model's images alone there are scores too."""
        return not self.metrics or any(METRICS[name].real for name in self.metrics)


@dataclass(frozen=True)
class Target:
    """What is scored: a weights file, or a folder (or archive) of images."""

    weights: Path | None
    folder: str | None

    @property
    def name(self) -> str:
        return str(self.weights or self.folder)


def understand(request: Request) -> tuple[Request, Target, Plan]:
    """Fill in the defaults and refuse what cannot work before anything is loaded.

    Raises:
        RecipeError: options that do not go together, or mean nothing.
        CheckpointError, DataError: files that are not there, or cannot be used.
    """
    _check_sharing(request)
    check_export(request)
    plan = understand_demands(request.demands, tuple(LOOKS))
    request = _ask_for_gates(request, plan)
    _refuse_files(request)
    if request.other is not None and request.reference is not None:
        raise RecipeError("a second folder and --reference both say what to compare with; give one")
    if request.other is not None:
        request = replace(request, reference=str(request.other))
    target = find_target(request.target)
    if request.looks and target.weights is None:
        raise RecipeError(
            f"{target.folder}: {_flag(request.looks[0])} looks into a model; name a run or weights"
        )
    if target.folder is not None and request.reference is None and request.needs_reference:
        raise RecipeError(
            f"{target.folder}: a folder is compared with another; name it second, or --reference NAME"
        )
    if request.reference is not None and is_statistics(request.reference):
        check_statistics(request.reference, request.mode)
    elif request.reference is not None:
        find_dataset(request.reference)  # raises when the name leads nowhere
    paired.refuse_unpaired(request, target.folder)
    _refuse_idle(request)
    if not request.needs_reference and request.reference is not None:
        console.notice(f"--{request.metrics[0]} compares with nothing: {request.reference} is not opened")
    if not request.metrics and not request.looks and not request.paired:
        console.notice("no metric was named: rfd and swd, which need no weights (--fid and --kid need them)")
        request = replace(request, metrics=WITHOUT_WEIGHTS)
    if request.reference is not None and is_statistics(request.reference):
        refuse_beyond_statistics(request)
    return request, target, plan


def check_only_reference(request: Request) -> None:
    """Refuse what no statistics can be made of before anything is loaded.

    Raises:
        RecipeError, CheckpointError, DataError: as `understand`.
    """
    check_export(request)
    _refuse_files(request)
    if is_statistics(str(request.reference)):
        refuse_beyond_statistics(request)
    find_dataset(str(request.reference))


def _check_sharing(request: Request) -> None:
    """Refuse several processes for what one does alone; RecipeError names the flag."""
    alone = [*request.looks, *(["paired"] if request.paired else [])]
    if alone and (request.num_processes or 1) > 1:
        raise RecipeError(f"{_flag(alone[0])} is not shared out; give it in a call of its own")


def check_export(request: Request) -> None:
    """Refuse statistics that cannot be written where `--export-reference` says.

    Raises:
        RecipeError: another suffix, or no metric that makes them.
        CheckpointError: a file could not be written there in the end.
    """
    path = request.export_reference
    if path is None:
        return
    if path.suffix.lower() != ".npz":
        raise RecipeError(f"--export-reference {path}: statistics are an .npz file")
    require_place(path)
    made_by = {"fid", "kid", "pr", "density", "fid_infinity"}
    if not request.only_reference and not made_by & set(request.metrics):
        raise RecipeError(
            "--export-reference writes Inception statistics: give --fid too, or --reference and nothing to score"
        )


def _refuse_files(request: Request) -> None:
    """Refuse a mode that does not exist, and weights that are not there."""
    if request.mode not in MODES:
        raise RecipeError(f"--mode {request.mode}: unknown{did_you_mean(request.mode, MODES)}")
    for flag, path in (("--weights", request.weights), ("--clip-weights", request.clip_weights)):
        if path is not None and not path.is_file():
            raise CheckpointError(f"{path}: no such file ({flag})")


def _ask_for_gates(request: Request, plan: Plan) -> Request:
    """Ask for what gates are about; where nothing is asked for at all, for what the baseline has."""
    wanted = [gate.metric for gate in plan.gates]
    if not wanted and not request.metrics and not request.looks and plan.baseline is not None:
        wanted = scores_of(plan.baseline)
    flags = ["paired" if METRICS[name].is_paired else name for name in metrics_of(wanted)]
    # Looks, and whatever else is scored beside METRICS, are switches of the request.
    switches: dict[str, Any] = {
        name: True
        for name in (*flags, *LOOKS)
        if name in Request.__dataclass_fields__
        and (name in flags or any(one.startswith(f"{name}.") for one in wanted))
    }
    metrics = (*request.metrics, *(flag for flag in flags if flag not in request.metrics))
    return replace(
        request,
        metrics=tuple(name for name in METRICS if name in metrics and not METRICS[name].is_paired),
        **switches,
    )


def _refuse_idle(request: Request) -> None:
    """Refuse what says what to compare with where nothing is compared."""
    if request.metrics or not request.looks:
        return
    compares = any(LOOKS[look][1] for look in request.looks)
    networks = ("weights", "clip_weights")
    for name in networks if compares else ("reference", "split", "resolution", *networks):
        if getattr(request, name) is not None:
            why = "needs no such network" if compares else "compares with nothing real"
            raise RecipeError(
                f"{_flag(name)}: {_flag(request.looks[0])} {why}; give a metric too, or leave it out"
            )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def find_target(spec: str | None) -> Target:
    """Return the weights or the folder that a word means; CheckpointError when it means nothing."""
    if spec is not None:
        path, spec = Path(spec).expanduser(), str(spec)
        is_run = (path / "recipe.toml").is_file() or any(path.glob("weights-*.safetensors"))
        if (path.is_dir() and not is_run) or path.suffix.lower() in ARCHIVES:
            place = find_dataset(spec).path
            # What lies here is scored, even where $GTOOL_DATA knows a set of that name.
            return Target(None, spec if place == path else f".{os.sep}{spec}")
    return Target(find_weights(spec), None)
