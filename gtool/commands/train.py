"""`gtool train`: prepare, iterate over the run shell, write what there is to write between two steps."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import checkpoint, console, models
from gtool.checkpoint import RunFolder
from gtool.commands.plan import Plan, Request, make_plan
from gtool.errors import CheckpointError, DivergedError, GToolError, InterruptedRunError
from gtool.recipe import Recipe, to_toml

if TYPE_CHECKING:
    from gtool.commands.report import Log
    from gtool.device import Compute
    from gtool.engines.adversarial import State
    from gtool.engines.loop import Tick
    from gtool.metrics.yardstick import Yardstick


def train(request: Request) -> None:
    """Run one training from the command line to the closing lines.

    Raises:
        GToolError: anything the user can mend; see `gtool.errors` for the exit status of each.
    """
    plan = make_plan(request)
    if request.dry_run:
        from gtool.commands.dryrun import dry_run

        return dry_run(plan, request)
    # Before torch: an empty folder or a hub out of reach is said at once, and a download happens in one process.
    source = _open_source(plan.recipe)
    from gtool.device import launch, launched_processes, make_compute

    if (request.num_processes or 1) > 1 and launched_processes() is None:
        return launch(request.num_processes or 1, sys.argv[1:])
    compute = make_compute(request.device, plan.recipe.train.precision, num_processes=request.num_processes)
    console.set_quiet(console.is_quiet() or not compute.is_main)
    with ExitStack() as stack:
        session = _open_session(plan, request, source, compute, stack)
        last = _iterate(session, stack)
        if compute.is_main:
            _finish(session, request, last)
    compute.close()


@dataclass
class Session:
    """One process's share of a run in progress; `run` belongs to the main process alone."""

    plan: Plan
    compute: Compute
    run: RunFolder
    state: State
    yardstick: Yardstick | None
    log: Log | None
    tracker: Any
    stop: Callable[[], int | None]
    best: dict[str, float]

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe


def _open_session(plan: Plan, request: Request, source: Any, compute: Compute, stack: ExitStack) -> Session:
    """Load the data, build or restore the state, make or take the run folder."""
    from gtool.engines.adversarial import init_state

    images = _load_images(source, plan.recipe, compute)
    batches = _make_batches(images, plan.recipe, compute)
    state = init_state(plan.recipe, plan.config, batches, compute)
    run = _take_run(plan, request, compute, stack)
    best = _restore(plan, run, state)
    session = Session(
        plan=plan,
        compute=compute,
        run=run,
        state=state,
        yardstick=None,
        log=None,
        tracker=None,
        stop=stack.enter_context(_signals()),
        best=best,
    )
    if compute.is_main:
        _introduce(session, len(images))
        _prepare_reports(session, request, images)
    return session


def _open_source(recipe: Recipe) -> Any:
    from gtool.data.sources import open_source

    data = recipe.data
    return open_source(
        data.dataset,
        split=data.split,
        image_column=data.image_column,
        label_column=data.label_column,
        segmentation_column=data.segmentation_column,
        num_images=data.num_images,
        resolution=data.resolution,
    )


def _load_images(source: Any, recipe: Recipe, compute: Compute) -> Any:
    from gtool.data.cache import load_images

    data = recipe.data
    if source.note:
        console.notice(source.note)
    with console.progress(f"reading {source.name}") as update:
        images = load_images(
            source,
            data.resolution,
            crop=data.crop,
            budget_gb=data.cache_gb,
            progress=lambda done, total: update(done, total, f"{done:,} of {total:,} images"),
        )
    if compute.is_main:
        _name_skipped(images.skipped)
    return images


def _name_skipped(skipped: list[tuple[str, str]]) -> None:
    if not skipped:
        return
    console.warning(f"{len(skipped)} of the files cannot be read and are left out:")
    for name, reason in skipped[:10]:
        console.warning(f"  {name}: {reason}")
    if len(skipped) > 10:
        console.warning(f"  and {len(skipped) - 10} more")


def _make_batches(images: Any, recipe: Recipe, compute: Compute) -> Any:
    from gtool.data.loader import Batches

    return Batches(
        images,
        seed=recipe.train.seed,
        flip=recipe.data.flip,
        rank=compute.rank,
        world_size=compute.world_size,
    )


def _take_run(plan: Plan, request: Request, compute: Compute, stack: ExitStack) -> RunFolder:
    """Make or reopen the run folder in the main process, lock it, and tell the others where it is."""
    path: str | None = None
    failure: GToolError | None = None
    if compute.is_main:
        try:
            dataset = Path(plan.recipe.data.dataset).name or "data"
            run = plan.run or checkpoint.create_run(request.out, f"{request.model}-{dataset}")
            stack.enter_context(run.lock())
            run.remove_leftovers()
            comment = f"made by: gtool {' '.join(sys.argv[1:])}\nrecipe: {plan.name}"
            with checkpoint.atomic_write(run.recipe) as temporary:
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


def _restore(plan: Plan, run: RunFolder, state: State) -> dict[str, float]:
    """Put the newest state back where there is one; return what is known of the best snapshot."""
    from gtool.engines.resume import restore_state

    states = run.states() if plan.run else []
    if not states:
        return {}
    tensors, info = checkpoint.load_state(states[-1])
    restore_state(state, tensors, info, str(states[-1]))
    return dict(info.get("best", {}))


def _introduce(session: Session, num_images: int) -> None:
    """Say in one line what runs: recipe, parameters, device, precision, time."""
    from gtool.commands.dryrun import estimate_seconds

    recipe, compute, state = session.recipe, session.compute, session.state
    networks = state.networks
    sizes = " + ".join(_millions(networks[name]) for name in ("generator", "discriminator"))
    remaining = (1 - state.nimg / (1000 * recipe.train.kimg)) * estimate_seconds(session.plan, compute)
    if recipe.train.minutes is not None:
        remaining = min(remaining, 60 * recipe.train.minutes - state.seconds)
    console.notice(
        f"{recipe.model_name} {session.plan.name}: {sizes} parameters (generator + discriminator), "
        f"{compute.describe()}, {compute.precision}, about {console.duration(remaining)}"
    )
    source = f"{recipe.data.dataset}, {num_images:,} images at {recipe.data.resolution} px"
    resumed = f", from {state.nimg / 1000:g} kimg on" if state.nimg else ""
    console.notice(f"data: {source}; run folder: {session.run.path}{resumed}")


def _millions(network: Any) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}M"


def _prepare_reports(session: Session, request: Request, images: Any) -> None:
    """Open log and tracker, show real images, measure the floor of the scores."""
    import numpy as np

    from gtool.commands.report import Log, save_grid
    from gtool.metrics.yardstick import Yardstick

    recipe = session.recipe
    session.log = Log(session.run, session.state.nimg)
    if request.tracker:
        from accelerate.tracking import TensorBoardTracker

        session.tracker = TensorBoardTracker("tensorboard", logging_dir=str(session.run.path))
        session.tracker.start()
    shown = np.asarray(images.images[np.arange(min(recipe.sample.num, len(images)))])
    save_grid(session.run, "real", shown, recipe.sample.columns, {"dataset": recipe.data.dataset})
    if recipe.train.metrics and len(images) >= 4:
        session.yardstick = Yardstick.build(
            images.images, num=recipe.train.metric_images, device=session.compute.device
        )
    if session.state.nimg == 0:
        _save_preview(session)
        # What an untrained generator gets: later scores are read as shares of it.
        session.log.add({"nimg": 0, "kimg": 0.0, "steps": 0, "seconds": 0.0, **_measure(session)})


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
    from gtool.engines import loop

    recipe, state = session.recipe, session.state
    engine = models.engine(recipe.model_name)
    update = stack.enter_context(console.progress("training"))
    scores: dict[str, float] = {}
    ticks = loop.run_training(engine.step, state, recipe.train, session.compute, stop_signal=session.stop)
    for tick in ticks:
        seen = _snapshot(session, tick) if tick.is_snapshot else {}
        scores = seen or scores
        if session.compute.is_main:
            _log(session, tick, seen)
            from gtool.commands.report import tick_note

            update(tick.progress, 1.0, tick_note(tick, scores))
        session.compute.wait()
        if tick.signum is not None:
            go_on = f"gtool train {recipe.model_name} --resume {session.run.path}"
            where = f"state saved in {session.run.path}; go on with `{go_on}`"
            raise InterruptedRunError(f"stopped at {tick.nimg / 1000:g} kimg; {where}", tick.signum)
    return scores


def _log(session: Session, tick: Tick, scores: Mapping[str, float]) -> None:
    from gtool.commands.report import tick_record

    rate = session.state.generator_optimizer.param_groups[0]["lr"]
    record = tick_record(tick, rate, scores)
    if session.log:
        session.log.add(record)
    if session.tracker:
        session.tracker.log(record, step=tick.nimg)


def _snapshot(session: Session, tick: Tick) -> dict[str, float]:
    """Save weights, state and preview in the main process, and measure; the others wait at the end of the tick."""
    if not session.compute.is_main:
        return {}
    from gtool.engines.generation import weights_meta
    from gtool.engines.resume import state_info, state_tensors

    run, state, recipe = session.run, session.state, session.recipe
    _require_finite(state)
    images = None if tick.signum is not None else _save_preview(session)
    scores = _measure(session) if images is not None else {}
    if scores and scores["rfd"] <= session.best.get("rfd", float("inf")):
        session.best = {"nimg": tick.nimg, "rfd": scores["rfd"]}
    meta = weights_meta(recipe, session.plan.config, state.nimg)
    checkpoint.save_weights(run.weights_path(state.nimg), state.ema.state_dict(), meta | {"scores": scores})
    info = state_info(state) | {"best": session.best}
    checkpoint.save_state(run.state_path(state.nimg), state_tensors(state), info)
    run.prune(recipe.train.keep, int(session.best["nimg"]) if session.best else None)
    return scores


def _require_finite(state: State) -> None:
    """Refuse to save networks that a step has just ruined.

    Raises:
        DivergedError: a parameter is not finite.
    """
    import torch

    for name, network in state.networks.items():
        norms = torch._foreach_norm([p.detach() for p in network.parameters()], float("inf"))
        if not bool(torch.stack(norms).isfinite().all()):
            raise DivergedError(
                f"training diverged at {state.nimg / 1000:g} kimg: the {name}'s weights are not finite; "
                "the last saved state is good: lower optim.learning_rate and resume from it"
            )


def _save_preview(session: Session) -> Any:
    """Write the grid of the fixed latents; returns its images, uint8 (N, 3, R, R)."""
    from gtool.commands.report import save_grid

    recipe = session.recipe
    images = _generate(session, recipe.sample.num, recipe.train.seed)
    kimg = session.state.nimg / 1000
    text = {"kimg": f"{kimg:g}", "seed": str(recipe.train.seed), "run": session.run.path.name}
    save_grid(session.run, f"{kimg:010.3f}", images, recipe.sample.columns, text)
    return images


def _generate(session: Session, count: int, seed: int) -> Any:
    import torch

    from gtool.engines.generation import generate

    chunks = generate(session.state.ema, seed, torch.arange(count), session.compute)
    return torch.cat(list(chunks)).numpy()


def _measure(session: Session) -> dict[str, float]:
    """Score fresh images of the averaged generator; their seed is never one that a user samples with by chance."""
    if session.yardstick is None:
        return {}
    from gtool.device import derive_seed

    fake = _generate(
        session, session.recipe.train.metric_images, derive_seed("metrics", session.recipe.train.seed)
    )
    wanted = session.recipe.train.metrics
    scores = session.yardstick.score(fake)
    return {name: value for name, value in scores.items() if name.startswith(tuple(wanted)) or name == "rfd"}


def _finish(session: Session, request: Request, scores: Mapping[str, float]) -> None:
    """Draw the pictures of the whole run and say where everything is and what to do next."""
    from gtool.commands.report import save_animation_of_run, save_curves, score_note

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
    console.notice(f"{'next':>10}: gtool sample {run.path} --num 64")
    console.result(str(run.path))
