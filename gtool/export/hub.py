"""A folder of the Hugging Face hub: weights, a model card with the scores of these weights, a picture."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gtool import __version__, console
from gtool.config.recipe import table_to_toml
from gtool.data.names import SHORT_NAMES, find_dataset
from gtool.errors import GToolError
from gtool.io.files import atomic_write, digest_of
from gtool.io.pictures import grid, save_png
from gtool.io.run_folder import MODEL_FILE, RunFolder
from gtool.io.weights import save_weights
from gtool.models import registry
from gtool.models.generate import load_model
from gtool.models.trained import Trained, open_trained
from gtool.reading import parse_json, read_bytes

PICTURE = "samples.png"
_FULL_PATH = r"[/\\~]|\.{1,2}[/\\]|[A-Za-z]:[/\\]"  # and relative ones that say so
NUM_SAMPLES = 16  # of weights that lie in no run, whose grid is made here
TASK = "unconditional-image-generation"  # as the hub calls it


def write_folder(weights: Path, folder: Path, repository: str, *, half: bool) -> None:
    """Write everything that goes to a repository.

    Raises:
        CheckpointError: weights that cannot be used, a folder that cannot be written.
    """
    trained = open_trained(weights)
    count = sum(parameter.numel() for parameter in trained.network().parameters())
    meta = {**trained.meta, "recipe": public(trained.meta.get("recipe", {}))}
    tensors = trained.halved() if half else trained.tensors
    save_weights(folder / MODEL_FILE, tensors, {key: value for key, value in meta.items() if value != {}})
    has_picture = _save_picture(trained, folder / PICTURE)
    scores = list(scores_of(weights))
    if not scores:
        console.notice("no scores of these weights are known: what `gtool eval RUN` finds is put on the card")
    text = card(repository, meta, count, scores, has_picture=has_picture)
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def card(
    repository: str, meta: Mapping[str, Any], count: int, scores: list[dict[str, Any]], *, has_picture: bool
) -> str:
    """Return the model card: a header for the hub, and what a person wants to know.

    meta: of the weights. count: parameters. scores: as of `scores_of`.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # half a second, for the hub alone

    row, recipe = registry.find_model(meta["model"]), dict(meta.get("recipe", {}))
    dataset = str(recipe.get("data", {}).get("dataset", "unknown"))
    hub_id = _hub_id(dataset)
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=hub_id or dataset,
            dataset_name=dataset,
            metric_type=score["name"],
            metric_name=score["protocol"],
            metric_value=score["value"],
        )
        for score in scores
    ]
    header = ModelCardData(
        library_name="gtool",
        pipeline_tag=TASK if row.samples_from == "latents" else None,
        tags=["gtool", meta["model"]],
        datasets=[hub_id] if hub_id else None,
        model_name=repository.partition("/")[2],
        eval_results=results or None,
    )
    written = ModelCard.from_template(
        header,
        template_path=str(Path(__file__).with_name("card.md.jinja")),
        repository=repository,
        meta=meta,
        count=f"{count / 1e6:.2f}",
        dataset=dataset,
        hub_id=hub_id,
        data=recipe.get("data", {}),
        scores=scores,
        picture=PICTURE if has_picture else None,
        use=row.next_command.format(path=repository),
        samples=row.samples_from,
        recipe=table_to_toml(recipe, registry.foreign_keys(meta["model"])) if recipe else None,
        version=__version__,
    )
    return str(written)


def scores_of(weights: Path) -> Iterator[dict[str, Any]]:
    """Yield what `gtool eval` has last found of these very weights, by protocol: name, protocol, value and more."""
    log = weights.parent / "eval.jsonl"
    if not log.is_file():
        return
    digest, found = digest_of(weights), dict[str, dict[str, Any]]()
    for line in read_bytes(log).splitlines():
        with suppress(ValueError, AttributeError, KeyError, TypeError):  # lines that a crash cut short
            record = parse_json(line)
            if record["weights_sha256"] == digest:
                metrics = record["metrics"].items()
                found |= {score["protocol"]: {"name": name, **score} for name, score in metrics}
    yield from (score for score in found.values() if isinstance(score.get("value"), int | float))


def public(values: Any) -> Any:
    """Return the values of a recipe with the last part of each path: where files lay is nobody's business.

    A relative path without a leading dot looks like the name of a hub's data set; it is one where something lies there.
    """
    if isinstance(values, dict):
        return {key: public(value) for key, value in values.items()}
    if isinstance(values, str) and (
        re.match(_FULL_PATH, values) or ("/" in values and os.path.lexists(values))
    ):
        return re.split(r"[/\\]", values.rstrip("/\\"))[-1]
    return values


def _hub_id(dataset: str) -> str | None:
    """Return where the hub has a data set, or None."""
    if dataset in SHORT_NAMES:
        return SHORT_NAMES[dataset].partition(":")[0]
    with suppress(GToolError):
        return find_dataset(dataset).repository or None
    return None


def _save_picture(trained: Trained, path: Path) -> bool:
    """Write the grid that the run has of this moment, or a new one of what samples from latents; say whether."""
    run, nimg = RunFolder(trained.path.parent), trained.meta.get("nimg", 0)
    of_run = run.samples / f"{nimg / 1000:010.3f}.png"
    if run.recipe.is_file() and of_run.is_file():
        shutil.copyfile(of_run, path)
    elif registry.find_model(trained.model).samples_from == "latents":
        images = load_model(trained.path).sample(NUM_SAMPLES)
        save_png(path, grid(images.transpose(0, 3, 1, 2)))
    return path.is_file()
