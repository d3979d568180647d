"""Tables brought in by Hugging Face `datasets`, quietly and without waiting for a dead network.

Local tables never touch the network. The hub is asked only after a short probe, because the library takes
24 seconds and six retries to give up; a set in the library's cache is used from there when the hub is out
of reach.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.data.names import SCENES, SHORT_NAMES, Place
from gtool.errors import DataError, NetworkError, did_you_mean
from gtool.io import hub
from gtool.io.files import cache_dir

if TYPE_CHECKING:
    from datasets import Dataset

Tables = Mapping[str, "Dataset"]  # split -> rows
HUB_SECONDS = 3.0
_NOISY = ("datasets", "huggingface_hub", "fsspec", "httpx", "urllib3", "filelock")


def load_tables(place: Place, offline: bool) -> tuple[Tables, str | None]:
    """Return the splits of a table and a note when something else than asked for was taken.

    Raises:
        DataError: no such set, or one that the library cannot read.
        NetworkError: the hub cannot be reached and the set is not cached.
    """
    with _quiet():
        if place.kind != "hub":
            return _load_local(place), None
        if offline or hub.is_offline():
            return _load_cached(place, "offline"), None
        if not hub.is_reachable():
            tables = _load_cached(place, f"{hub.endpoint()} cannot be reached")
            return (
                tables,
                f"{place.repository}: the hub cannot be reached; its copy in the local cache is used",
            )
        _require_repository(place.repository)
        return _read(place.repository, lambda load: load(place.repository, place.config)), None


def _load_local(place: Place) -> Tables:
    path, name = place.path, str(place.path)
    assert path is not None
    if place.kind == "arrow":
        from datasets import load_from_disk

        return _read(name, lambda _: load_from_disk(name))
    cache = str(cache_dir() / "tables")
    with _no_network():
        if not path.is_dir():
            return _read(name, lambda load: load("parquet", data_files=name, cache_dir=cache))
        if _has_configurations(path):
            return _read(name, lambda load: load(str(path.resolve()), place.config, cache_dir=cache))
        return _read(name, lambda load: load("parquet", data_dir=name, cache_dir=cache))


def _has_configurations(folder: Path) -> bool:
    """Say whether a README in the hub's layout describes the tables beside it."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    header = readme.read_text(encoding="utf-8", errors="replace")[:65536].split("---")
    return len(header) > 2 and any(key in header[1] for key in ("configs:", "dataset_info:"))


def _load_cached(place: Place, why: str) -> Tables:
    from datasets import load_dataset

    try:
        with _no_network():
            return _splits(load_dataset(place.repository, place.config))
    except (ConnectionError, FileNotFoundError):
        raise NetworkError(
            f"data set `{place.repository}`: no such folder, not in the local cache, and {why}; "
            f"give a folder of images, put its copy into a folder of $GTOOL_DATA, or use --dataset {SCENES}"
        ) from None
    except ValueError as bad:
        raise DataError(f"{place.repository}: {_reason(bad)}") from None


def _require_repository(repository: str) -> None:
    """Ask the hub whether it has the data set, in a few seconds.

    Raises:
        DataError: it has none of this name, or only for some.
        NetworkError: it does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        HfApi(endpoint=hub.endpoint()).dataset_info(repository, timeout=HUB_SECONDS)
    except GatedRepoError:
        raise DataError(
            f"{repository}: its owner grants access on the hub; ask for it there, then run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        known = [SCENES, *SHORT_NAMES, *(name.partition(":")[0] for name in SHORT_NAMES.values())]
        hint = did_you_mean(repository, known)
        raise DataError(
            f"data set `{repository}`: no such folder, and none of this name on the hub"
            f"{hint if hint.startswith('; did') else ''}"
        ) from None
    # Whatever else the client raises in this one call, with its HTTP library of the day: no connection.
    except Exception as bad:
        raise NetworkError(f"{repository}: {hub.endpoint()} does not answer: {_reason(bad)}") from None


def _read(name: str, load: Callable[[Callable[..., Any]], Any]) -> Tables:
    """Call the library and turn what it raises into one line.

    Raises:
        DataError: the set cannot be read, with the library's reason.
    """
    from datasets import load_dataset

    try:
        return _splits(load(load_dataset))
    # Readers of tables from strangers raise errors of arrow, yaml, fsspec and their own.
    except Exception as bad:
        reason = _reason(bad.__cause__ or bad, lines=2)  # the second names the choices
        if "onfig name is missing" in reason:
            reason += f"; name it after a colon, as in `{name}:configuration`"
        raise DataError(f"{name}: cannot be read: {reason}") from bad


def _splits(loaded: Any) -> Tables:
    """Return split -> rows; a saved set without splits is one called `train`."""
    if isinstance(loaded, dict):
        return {str(split): rows for split, rows in loaded.items()}
    return {str(loaded.split or "train"): loaded}


def _reason(bad: BaseException, lines: int = 1) -> str:
    """Return the first lines of an error as one."""
    said = [line.strip() for line in str(bad).splitlines() if line.strip()]
    return " ".join(said[:lines])[:300] if said else type(bad).__name__


@contextmanager
def _no_network() -> Iterator[None]:
    """Keep the libraries from the network; they read the environment only once, when they are imported."""
    import datasets
    from huggingface_hub import constants

    previous = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = previous


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars, log lines and warnings of the libraries: what matters is raised."""
    import datasets

    levels = {name: logging.getLogger(name).level for name in _NOISY}
    had_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if had_bars:
            datasets.enable_progress_bars()
