"""`gtool train`: open the data, iterate over the run shell, write what there is to write between two steps."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from gtool import __version__, console
from gtool.config.recipe import to_toml
from gtool.config.schema import Recipe
from gtool.data.dataset import ImageDataset
from gtool.data.names import find_dataset
from gtool.data.read_tables import require_on_hub
from gtool.errors import CheckpointError, DivergedError, GToolError, InterruptedRunError
from gtool.io.files import atomic_write, sampled_digest
from gtool.io.run_folder import RunFolder, create_run, find_start, is_state
from gtool.io.weights import load_state, save_state, save_weights
from gtool.models import registry
from gtool.models.flops import forward_flops
from gtool.models.generate import weights_meta
from gtool.models.trained import open_trained
from gtool.runtime.device import Compute, make_compute
from gtool.runtime.processes import is_distributed, launch, launched_processes
from gtool.train import reports
from gtool.train.dry_run import BESIDE, dry_run, estimate_seconds
from gtool.train.loop import Tick, progress, run_training
from gtool.train.resolve import Training
from gtool.train.trainer import Trainer


def run(training: Training) -> None:
    """Run one training to the closing lines.

    Raises:
        GToolError: anything the user can mend; see `gtool.errors` for the exit status of each.
    """
    options, recipe, config, recipe_name, resumed = training
    family, processes = registry.trainer(options.model), options.num_processes or 1
    family.check(recipe, config, processes)  # said once, and not by every process
    if options.dry_run:
        return _dry_run(training)
    if not is_distributed():
        # Before processes are launched: an empty folder is said at once, and downloads happen once.
        inputs = family.open_inputs(recipe, resumed)
    if processes > 1 and launched_processes() is None:
        return launch(processes, sys.argv[1:])
    compute = make_compute(
        options.device,
        recipe.train.precision,
        num_processes=options.num_processes,
        timeout=options.timeout,
        deterministic=recipe.train.deterministic,
    )
    console.set_repeats(False)
    console.set_quiet(console.is_quiet() or not compute.is_main)
    if compute.peers:  # each hears of it when one cannot go on
        inputs = family.open_inputs(recipe, resumed)
        compute.agree(_facts(recipe, inputs, resumed))
    with ExitStack() as stack:
        trainer = family(recipe, config, inputs, compute)
        recipe, state = trainer.recipe, trainer.state
        folder = _take_folder(recipe, resumed or options.out, compute, stack)
        best = _restore(trainer, folder, options.resume if resumed else None)
        compute.agree(
            {"the images read": trainer.describe_data(), "the step to go on from": str(state.steps)}
        )
        go_on = f"gtool train {options.model} --resume {folder.path}"
        compute.advise(f"; the last snapshot is kept: `{go_on}`")
        stop_signal = stack.enter_context(stop_signals())
        update = stack.enter_context(console.progress("training"))
        writer = RunWriter(folder, trainer, best, options.tracker, update) if compute.is_main else None
        if writer:
            writer.begin(recipe_name, removes_weights=is_state(options.resume))
        compute.meet()
        scores: dict[str, float] = {}
        for tick in run_training(trainer.step, state, stop_signal):
            if writer:
                if tick.is_snapshot or tick.signum:
                    with compute.saving():
                        scores = writer.snapshot(tick) or scores
                else:
                    writer.log(tick, {})
                update(state.progress, 1.0, reports.tick_note(state, tick, scores))
            compute.meet()
            if tick.signum is not None:
                where = f"state saved in {folder.path}; go on with `{go_on}`"
                raise InterruptedRunError(f"stopped at {state.nimg / 1000:g} kimg; {where}", tick.signum)
        if writer:
            writer.finish(scores, options.as_json)
    compute.close()


def _dry_run(training: Training) -> None:
    """Open the data as training would, say what they are taken for and what training would cost."""
    options, recipe, config, recipe_name, resumed = training
    place = find_dataset(recipe.data.dataset)
    if place.kind == "hub":  # nothing is downloaded to be looked at
        require_on_hub(place)
    else:
        inputs = registry.trainer(options.model).open_inputs(recipe, resumed)
        images = inputs[0] if isinstance(inputs, tuple) else inputs
        if images is not None:
            console.notice(f"data: {images.describe()}")
    compute = make_compute(options.device, recipe.train.precision)
    processes = options.num_processes or 1
    dry_run(recipe, config, recipe_name, compute, processes=processes, as_json=options.as_json)


def _say_that_it_is_over(state: Any) -> None:
    train = state.recipe.train
    by_time = train.minutes is not None and state.nimg < round(1000 * train.kimg)
    over, flag = (
        (f"{train.minutes:g} minutes", "--minutes") if by_time else (f"{train.kimg:g} kimg", "--kimg")
    )
    console.warning(f"nothing to do: {over} are over; {flag} counts the whole run")


def _take_folder(
    recipe: Recipe, place: RunFolder | Path | None, compute: Compute, stack: ExitStack
) -> RunFolder:
    """Make or reopen the run folder in the main process, lock it, and tell the other processes where it is."""
    path: str | None = None
    failure: GToolError | None = None
    if compute.is_main:
        try:
            name = f"{recipe.model_name}-{Path(recipe.data.dataset).name or 'data'}"
            folder = place if isinstance(place, RunFolder) else create_run(place, name)
            stack.enter_context(folder.lock())
            folder.remove_leftovers()
            path = str(folder.path)
        except GToolError as failed:
            failure = failed
    path, failure = compute.share((path, failure))
    if failure or path is None:
        raise failure or CheckpointError("the run folder could not be opened")
    return place if isinstance(place, RunFolder) else RunFolder(Path(path))


def _facts(recipe: Recipe, inputs: Any, resumed: RunFolder | None) -> dict[str, str]:
    """Return what all processes of a run must have in common, by what it is about.

    inputs: what `Trainer.open_inputs` has returned: images, and the file of a tokenizer.
    """
    facts = {"the version of gtool": __version__}
    facts["the run to resume"] = resumed.path.name if resumed else "none, a new one begins"
    facts["its newest state"] = "none"
    states = resumed.states() if resumed else []
    if states:
        digests = [sampled_digest(file) for file in sorted(states[-1].iterdir())]
        facts["its newest state"] = f"{states[-1].name} ({' '.join(digests)})"
    for section, values in recipe.model_dump(mode="json").items():
        keys = values if isinstance(values, dict) else {"": values}
        facts |= {f"{section}.{key}".rstrip("."): str(value) for key, value in keys.items()}
    for part in inputs if isinstance(inputs, tuple) else (inputs,):
        if isinstance(part, ImageDataset):
            facts["the data"] = f"{len(part):,} images ({part.sampled_digest()})"
        elif isinstance(part, Path):
            facts["the tokenizer"] = f"{part.name} ({sampled_digest(part)})"
    if recipe.train.weights is not None and not states:
        path = find_start(recipe.train.weights, recipe.model_name)
        facts["the weights to begin with"] = f"{path.name} ({sampled_digest(path)})"
    return facts


def _restore(trainer: Trainer, folder: RunFolder, resume: str | None) -> dict[str, float]:
    """Put a state or the weights to begin with into the networks; return what is known of the best snapshot.

    `resume` names the state, or stands for the newest; `auto` goes back to an older one where the newest is damaged.
    """
    recipe = trainer.recipe
    states = (
        [Path(resume).expanduser()]
        if resume and is_state(resume)
        else folder.states()[::-1]
        if resume
        else []
    )
    for path, older in zip_longest(states, states[1:]):
        try:
            tensors, info = load_state(path)
            return trainer.state.restore(tensors, info, str(path))
        except CheckpointError as damaged:
            if older is None:
                raise
            if resume != "auto":
                raise CheckpointError(f"{damaged}; an older state: --resume {older}") from None
            if trainer.compute.is_main:
                console.warning(f"{damaged}; goes on from {older.name}")
    if recipe.train.weights is not None:
        trainer.state.start_from(open_trained(find_start(recipe.train.weights, recipe.model_name)))
    return {}


@contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Note SIGINT and SIGTERM until the next step can act on them; a second one stops at once."""
    received: list[int] = []

    def note(signum: int, _frame: object) -> None:
        received.append(signum)
        signal.signal(signum, signal.SIG_DFL)
        console.notice_from_handler(
            "stopping after this step; the state will be saved (again to stop at once)"
        )

    previous = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


class RunWriter:
    """Writes the run folder in the main process: log, previews, scores, snapshots, and the closing pictures."""

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        best: dict[str, float],
        tracker: str | None,
        update: console.Update,
    ) -> None:
        self.folder, self.trainer, self.best, self._update = folder, trainer, best, update
        self._seconds_before = 0.0  # spent on previews and scores before the first step
        self.recipe, self.state = trainer.recipe, trainer.state
        self._tracker = reports.open_tracker(tracker, folder, self.recipe) if tracker else None

    def begin(self, recipe_name: str, *, removes_weights: bool) -> None:
        """Say in two lines what runs, show what is learned from, measure what an untrained model gets."""
        if progress(self.state, self.recipe.train) >= 1.0:
            return _say_that_it_is_over(self.state)
        recipe, state, folder, trainer = self.recipe, self.state, self.folder, self.trainer
        comment = f"made by: gtool {' '.join(sys.argv[1:])}\nrecipe: {recipe_name}"
        text = to_toml(recipe, comment, leave_out=registry.foreign_keys(recipe.model_name))
        with atomic_write(folder.recipe) as temporary:
            temporary.write_text(text, encoding="utf-8")
        reports.cut_log(folder, state.nimg)
        if later := folder.remove_after(state.nimg, weights=removes_weights):
            console.warning(
                f"{folder.path}: removed {', '.join(path.name for path in later)}, which came after"
            )
        self._say_what_runs(recipe_name)
        resumed = f", from {state.nimg / 1000:g} kimg on" if state.nimg else ""
        console.notice(f"run folder: {folder.path}{resumed}; {trainer.describe_data()}")
        columns = trainer.real_columns or recipe.sample.columns
        reports.save_grid(folder, "real", trainer.real_images(), columns, {"dataset": recipe.data.dataset})
        if state.nimg == 0:
            start = time.monotonic()
            self._update(0.0, 1.0, "scoring the untrained network")
            self._save_preview()
            scores = trainer.measure()
            self._seconds_before = time.monotonic() - start
            reports.add_record(folder, {"nimg": 0, "kimg": 0.0, "steps": 0, "seconds": 0.0, **scores})

    def _say_what_runs(self, recipe_name: str) -> None:
        recipe, state, compute = self.recipe, self.state, self.trainer.compute
        sizes = {
            name: sum(p.numel() for p in network.parameters())
            for name, network in state.networks.items()
            if name != "ema"
        }
        sizes = {name: size for name, size in sizes.items() if size}
        millions = " + ".join(f"{size / 1e6:.2f}M" for size in sizes.values())
        parameters = (
            f"{millions} parameters ({' + '.join(sizes)})" if sizes else "nothing learned by gradients"
        )
        first, *others = registry.find_model(recipe.model_name).networks
        counted = {first: state.ema} | {name: state.networks[name] for name in others if name in sizes}
        forward = {name: forward_flops(network) for name, network in counted.items()}
        whole = estimate_seconds(recipe, forward, compute)
        remaining = (1 - state.nimg / (1000 * recipe.train.kimg)) * whole
        if recipe.train.minutes is not None:
            remaining = min(remaining, 60 * recipe.train.minutes - state.seconds)
        console.notice(
            f"{recipe.model_name} {recipe_name}: {parameters}, "
            f"{compute.describe()}, {compute.precision}, about {console.duration(remaining)}{BESIDE}"
        )

    def log(self, tick: Tick, scores: Mapping[str, float]) -> None:
        """Write a tick to log.jsonl, and to the tracker."""
        record = reports.tick_record(self.state, tick, scores)
        reports.add_record(self.folder, record)
        if self._tracker:
            with redirect_stdout(sys.stderr):
                self._tracker.log(record, step=self.state.nimg)

    def snapshot(self, tick: Tick) -> dict[str, float]:
        """Log the tick, save weights and state; where the snapshot is due, save a preview and return the scores.

        Raises:
            DivergedError: a parameter is not finite; nothing has been written.
        """
        folder, state, recipe = self.folder, self.state, self.recipe
        _require_finite(state)
        scores: dict[str, float] = {}
        if tick.is_snapshot:
            self._update(state.progress, 1.0, f"{state.nimg / 1000:.1f} kimg  scoring")
            self._save_preview()
            scores = self.trainer.measure()
        self._update(state.progress, 1.0, f"{state.nimg / 1000:.1f} kimg  saving")
        rank = self.trainer.ranked_by
        if rank in scores and scores[rank] <= self.best.get(rank, float("inf")):
            self.best = {"nimg": state.nimg, rank: scores[rank]}
        meta = weights_meta(recipe, self.trainer.config, state.nimg) | {"scores": scores}
        save_weights(folder.weights_path(state.nimg), state.ema.state_dict(), meta)
        # Before the state: a run that goes on from an older one drops the line again.
        self.log(tick, scores)
        save_state(folder.state_path(state.nimg), state.tensors(), state.info() | {"best": self.best})
        folder.prune(recipe.train.keep_snapshots, int(self.best["nimg"]) if self.best else None)
        return scores

    def _save_preview(self) -> None:
        kimg, images = self.state.nimg / 1000, self.trainer.preview()
        text = {"kimg": f"{kimg:g}", "seed": str(self.recipe.train.seed), "run": self.folder.path.name}
        columns = self.recipe.sample.columns or self.trainer.preview_columns
        reports.save_grid(self.folder, f"{kimg:010.3f}", images, columns, text)

    def finish(self, scores: Mapping[str, float], as_json: bool) -> None:
        """Draw the pictures of the whole run and say where everything is and what to do next."""
        folder, state = self.folder, self.state
        self._update(1.0, 1.0, "drawing the animation and the curves")
        animation = reports.save_animation_of_run(folder, self.recipe.sample.fps)
        curves = reports.save_curves_of_run(folder)
        if self._tracker:
            with redirect_stdout(sys.stderr):  # results alone stand there
                self._tracker.finish()
        grids, weights = sorted(folder.samples.glob("[0-9]*.png")), folder.weights()
        if as_json:
            record = {
                "run": str(folder.path),
                "weights": str(weights[-1]) if weights else None,
                "grid": str(grids[-1]) if grids else None,
                "kimg": state.nimg / 1000,
                "steps": state.steps,
                "seconds": round(state.seconds, 2),
                "scores": dict(scores),
            }
            return console.result_json(record)
        if scores:
            console.notice(reports.score_note(scores))
        before = (
            f", after {console.duration(self._seconds_before)} of scoring"
            if self._seconds_before >= 1
            else ""
        )
        console.notice(f"{state.nimg / 1000:g} kimg in {console.duration(state.seconds)}{before}")
        paths = {"samples": grids[-1] if grids else None, "animation": animation, "curves": curves}
        for name, path in paths.items():
            if path:
                console.notice(f"{name:>10}: {path}")
        console.notice(f"{'weights':>10}: {weights[-1] if weights else 'none yet'}")
        use = registry.find_model(self.recipe.model_name).next_command.format(path=folder.path)
        console.notice(f"{'next':>10}: {use}")
        console.result(str(folder.path))


def _require_finite(state: Any) -> None:
    """Refuse to save networks that a step has just ruined."""
    for name, network in state.networks.items():
        parameters = [p.detach() for p in network.parameters()]
        if not parameters:
            continue
        norms = torch._foreach_norm(parameters, float("inf"))
        if not bool(torch.stack(norms).isfinite().all()):
            raise DivergedError(
                f"training diverged at {state.nimg / 1000:g} kimg: the {name}'s weights are not finite; "
                "the last saved state is good: lower optim.learning_rate and resume from it"
            )
