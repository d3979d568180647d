"""`gtool train`: prepare, iterate over the run shell, write what there is to write between two steps."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gtool import console
from gtool.config.recipe import Recipe, to_toml
from gtool.errors import CheckpointError, DivergedError, GToolError, InterruptedRunError
from gtool.io import checkpoint
from gtool.io.files import atomic_write
from gtool.io.run_folder import RunFolder, create_run, find_start
from gtool.models import registry
from gtool.train.options import Plan, Request, make_plan

if TYPE_CHECKING:
    from torch import Tensor

    from gtool.runtime.device import Compute
    from gtool.train.loop import Tick
    from gtool.train.reports import Log


def train(request: Request) -> None:
    """Run one training from the command line to the closing lines.

    Raises:
        GToolError: anything the user can mend; see `gtool.errors` for the exit status of each.
    """
    plan = make_plan(request)
    if request.dry_run:
        from gtool.train.dry_run import dry_run

        return dry_run(plan, request)
    # Before torch: an empty folder or a hub out of reach is said at once, and a download happens in one process.
    inputs = registry.trainer(request.model).open_inputs(plan.recipe)
    from gtool.runtime.device import make_compute
    from gtool.runtime.processes import launch, launched_processes

    if (request.num_processes or 1) > 1 and launched_processes() is None:
        # Said once, and not by every process.
        registry.trainer(request.model).check(plan.recipe, plan.config, request.num_processes or 1)
        return launch(request.num_processes or 1, sys.argv[1:])
    compute = make_compute(request.device, plan.recipe.train.precision, num_processes=request.num_processes)
    console.set_quiet(console.is_quiet() or not compute.is_main)
    with ExitStack() as stack:
        session = _open_session(plan, request, inputs, compute, stack)
        last = _iterate(session, stack)
        if compute.is_main:
            _finish(session, request, last)
    compute.close()


class Trainer(Protocol):
    """What one family of models adds to a run; made by the module that the table of models names."""

    recipe: Recipe
    config: Any  # of the networks as they are trained: what the data decide is filled in, as in the recipe
    step: Callable[[Any], dict[str, Tensor]]
    state: Any  # see `gtool.train.loop.Progress` and `gtool.train.resume.TrainingState`
    preview_columns: int | None  # pictures a row of a preview, where the recipe leaves it open
    ranked_by: str  # the score that says which snapshot is best: the lower the better

    def describe_data(self) -> str:
        """Return what is learned from, in a few words."""
        ...

    def open_reports(self, run: RunFolder) -> None:
        """Write pictures of what is learned from, and prepare what `measure` needs."""
        ...

    def preview(self) -> Any:
        """Return pictures of how far training is, uint8 (N, 3, R, R), always of the same subjects."""
        ...

    def measure(self) -> dict[str, float]:
        """Return scores by name."""
        ...

    def next_command(self, run: RunFolder) -> str:
        """Return what a user would type next."""
        ...


@dataclass
class Session:
    """One process's share of a run in progress; `run` belongs to the main process alone."""

    plan: Plan
    compute: Compute
    run: RunFolder
    trainer: Trainer
    log: Log | None
    tracker: Any
    stop: Callable[[], int | None]
    best: dict[str, float]

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    @property
    def state(self) -> Any:
        return self.trainer.state


def _open_session(plan: Plan, request: Request, inputs: Any, compute: Compute, stack: ExitStack) -> Session:
    """Load the data, build or restore the state, make or take the run folder."""
    trainer = registry.trainer(request.model).Trainer(plan.recipe, plan.config, inputs, compute)
    plan = replace(plan, recipe=trainer.recipe, config=trainer.config)
    run = _take_run(plan, request, compute, stack)
    best = _restore(plan, run, trainer.state)
    session = Session(
        plan=plan,
        compute=compute,
        run=run,
        trainer=trainer,
        log=None,
        tracker=None,
        stop=stack.enter_context(_signals()),
        best=best,
    )
    if compute.is_main:
        _introduce(session)
        _prepare_reports(session, request)
    return session


def _take_run(plan: Plan, request: Request, compute: Compute, stack: ExitStack) -> RunFolder:
    """Make or reopen the run folder in the main process, lock it, and tell the others where it is."""
    path: str | None = None
    failure: GToolError | None = None
    if compute.is_main:
        try:
            dataset = Path(plan.recipe.data.dataset).name or "data"
            run = plan.run or create_run(request.out, f"{request.model}-{dataset}")
            stack.enter_context(run.lock())
            run.remove_leftovers()
            comment = f"made by: gtool {' '.join(sys.argv[1:])}\nrecipe: {plan.name}"
            with atomic_write(run.recipe) as temporary:
                temporary.write_text(to_toml(plan.recipe, comment), encoding="utf-8")
            path = str(run.path)
        except GToolError as failed:
            failure = failed
    path = compute.share(path)
    if failure:
        raise failure
    if path is None:
        raise CheckpointError(f"process {compute.rank}: the main process could not open the run folder")
    return RunFolder(Path(path))


def _restore(plan: Plan, run: RunFolder, state: Any) -> dict[str, float]:
    """Put the newest state back, or the weights to begin with; return what is known of the best snapshot."""
    from gtool.models.trained import open_trained
    from gtool.train.resume import begin_with, restore_state

    states = run.states() if plan.run else []
    if not states:
        if (start := plan.recipe.train.weights) is not None:
            begin_with(state, open_trained(find_start(start, plan.recipe.model_name)))
        return {}
    tensors, info = checkpoint.load_state(states[-1])
    restore_state(state, tensors, info, str(states[-1]))
    return dict(info.get("best", {}))


def _introduce(session: Session) -> None:
    """Say in one line what runs: recipe, parameters, device, precision, time."""
    from gtool.train.dry_run import estimate_seconds

    recipe, compute, state = session.recipe, session.compute, session.state
    networks = {
        name: network
        for name, network in state.networks.items()
        if name != "ema" and any(True for _ in network.parameters())
    }
    sizes = " + ".join(_millions(network) for network in networks.values())
    parameters = (
        f"{sizes} parameters ({' + '.join(networks)})" if networks else "nothing learned by gradients"
    )
    remaining = (1 - state.nimg / (1000 * recipe.train.kimg)) * estimate_seconds(session.plan, compute)
    if recipe.train.minutes is not None:
        remaining = min(remaining, 60 * recipe.train.minutes - state.seconds)
    console.notice(
        f"{recipe.model_name} {session.plan.name}: {parameters}, "
        f"{compute.describe()}, {compute.precision}, about {console.duration(remaining)}"
    )
    resumed = f", from {state.nimg / 1000:g} kimg on" if state.nimg else ""
    console.notice(f"data: {session.trainer.describe_data()}; run folder: {session.run.path}{resumed}")


def _millions(network: Any) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}M"


def _prepare_reports(session: Session, request: Request) -> None:
    """Open log and tracker, show what is learned from, measure what an untrained model gets."""
    from gtool.train.reports import Log

    session.log = Log(session.run, session.state.nimg)
    if request.tracker:
        from accelerate.tracking import TensorBoardTracker

        session.tracker = TensorBoardTracker("tensorboard", logging_dir=str(session.run.path))
        session.tracker.start()
    session.trainer.open_reports(session.run)
    if session.state.nimg == 0:
        _save_preview(session)
        # What an untrained model gets: later scores are read as shares of it.
        scores = session.trainer.measure()
        session.log.add({"nimg": 0, "kimg": 0.0, "steps": 0, "seconds": 0.0, **scores})


@contextmanager
def _signals() -> Iterator[Callable[[], int | None]]:
    """Note SIGINT and SIGTERM until the next step can act on them; a second one stops at once."""
    seen: list[int] = []

    def note(signum: int, _frame: object) -> None:
        seen.append(signum)
        console.notice("stopping after this step; the state will be saved (again to stop at once)")
        signal.signal(signum, signal.SIG_DFL)

    previous = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: seen[0] if seen else None
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _iterate(session: Session, stack: ExitStack) -> dict[str, float]:
    """Train to the end; returns the last scores.

    Raises:
        DivergedError: not finite; the last saved state stays.
        InterruptedRunError: a signal came, and the state has been saved.
    """
    from gtool.train import loop

    recipe, state = session.recipe, session.state
    update = stack.enter_context(console.progress("training"))
    scores: dict[str, float] = {}
    ticks = loop.run_training(
        session.trainer.step, state, recipe.train, session.compute, stop_signal=session.stop
    )
    for tick in ticks:
        seen = _snapshot(session, tick) if tick.is_snapshot else {}
        scores = seen or scores
        if session.compute.is_main:
            _log(session, tick, seen)
            from gtool.train.reports import tick_note

            update(tick.progress, 1.0, tick_note(tick, scores))
        session.compute.wait()
        if tick.signum is not None:
            go_on = f"gtool train {recipe.model_name} --resume {session.run.path}"
            where = f"state saved in {session.run.path}; go on with `{go_on}`"
            raise InterruptedRunError(f"stopped at {tick.nimg / 1000:g} kimg; {where}", tick.signum)
    return scores


def _log(session: Session, tick: Tick, scores: Mapping[str, float]) -> None:
    from gtool.train.reports import tick_record

    rates = [optimizer.param_groups[0]["lr"] for _, optimizer in session.state.optimizers.values()]
    record = tick_record(tick, rates[0] if rates else 0.0, scores)
    if session.log:
        session.log.add(record)
    if session.tracker:
        session.tracker.log(record, step=tick.nimg)


def _snapshot(session: Session, tick: Tick) -> dict[str, float]:
    """Save weights, state and preview in the main process, and measure; the others wait at the end of the tick."""
    if not session.compute.is_main:
        return {}
    from gtool.models.generate import weights_meta
    from gtool.train.resume import state_info, state_tensors

    run, state, recipe = session.run, session.state, session.recipe
    _require_finite(state)
    images = None if tick.signum is not None else _save_preview(session)
    scores = session.trainer.measure() if images is not None else {}
    rank = session.trainer.ranked_by
    if rank in scores and scores[rank] <= session.best.get(rank, float("inf")):
        session.best = {"nimg": tick.nimg, rank: scores[rank]}
    meta = weights_meta(recipe, session.plan.config, state.nimg)
    checkpoint.save_weights(run.weights_path(state.nimg), state.ema.state_dict(), meta | {"scores": scores})
    info = state_info(state) | {"best": session.best}
    checkpoint.save_state(run.state_path(state.nimg), state_tensors(state), info)
    run.prune(recipe.train.keep, int(session.best["nimg"]) if session.best else None)
    return scores


def _require_finite(state: Any) -> None:
    """Refuse to save networks that a step has just ruined.

    Raises:
        DivergedError: a parameter is not finite.
    """
    import torch

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


def _save_preview(session: Session) -> Any:
    """Write the grid of the fixed latents; returns its images, uint8 (N, 3, R, R)."""
    from gtool.train.reports import save_grid

    recipe = session.recipe
    images = session.trainer.preview()
    kimg = session.state.nimg / 1000
    text = {"kimg": f"{kimg:g}", "seed": str(recipe.train.seed), "run": session.run.path.name}
    columns = recipe.sample.columns or session.trainer.preview_columns
    save_grid(session.run, f"{kimg:010.3f}", images, columns, text)
    return images


def _finish(session: Session, request: Request, scores: Mapping[str, float]) -> None:
    """Draw the pictures of the whole run and say where everything is and what to do next."""
    from gtool.train.reports import save_animation_of_run, save_curves, score_note

    run, state = session.run, session.state
    animation, curve = save_animation_of_run(run, session.recipe.sample.fps), save_curves(run)
    grids = sorted(run.samples.glob("[0-9]*.png"))
    if session.tracker:
        session.tracker.finish()
    weights = run.weights()
    if request.as_json:
        record = {
            "run": str(run.path),
            "weights": str(weights[-1]) if weights else None,
            "grid": str(grids[-1]) if grids else None,
            "kimg": state.nimg / 1000,
            "steps": state.steps,
            "seconds": round(state.seconds, 2),
            "scores": dict(scores),
        }
        return console.result_json(record)
    if scores:
        console.notice(score_note(scores))
    console.notice(f"{state.nimg / 1000:g} kimg in {console.duration(state.seconds)}")
    for name, path in (
        ("samples", grids[-1] if grids else None),
        ("animation", animation),
        ("curves", curve),
    ):
        if path:
            console.notice(f"{name:>10}: {path}")
    console.notice(f"{'weights':>10}: {weights[-1] if weights else 'none yet'}")
    console.notice(f"{'next':>10}: {session.trainer.next_command(run)}")
    console.result(str(run.path))
