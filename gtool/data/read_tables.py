"""Reading tables through Hugging Face `datasets`: parquet and arrow files, saved sets, sets of the hub.

Local tables never touch the network. The hub is asked only after a short probe, because the library takes 24 seconds
and six retries to give up; a set in the library's cache is used from there when the hub is out of reach.

The library is imported where it is used: it takes 1.7 s, and folders, zips and scenes do without it.
"""

from __future__ import annotations

import errno
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.data.names import SCENES, SHORT_NAMES, Place
from gtool.errors import DataError, NetworkError, did_you_mean
from gtool.io import hub
from gtool.io.files import cache_dir
from gtool.io.image_files import is_url, visible_files
from gtool.reading import check_plain, limited, parse_json, read_bytes, reading

if TYPE_CHECKING:
    from datasets import Dataset

Tables = Mapping[str, "Dataset"]  # split -> rows
HUB_SECONDS = 3.0
# Of tables on this disk while they are unpacked, above what the process has: columns can hold a value in a few bytes
# that a million rows share.
MOST_MEMORY, MOST_UNPACKED, LARGEST_RATIO, ROWS_AT_ONCE = 512 << 20, 256 << 20, 20, 100
_OF_NETWORK = {"httpx", "httpx2", "httpcore", "requests", "aiohttp", "urllib3", "huggingface_hub"}
MOST_CARD = 4 << 20  # bytes of a README


def read_tables(place: Place) -> tuple[Tables, str | None]:
    """Return the splits of a table and a note when something else than asked for was taken."""
    import datasets

    name = place.repository
    with _quiet():
        if place.kind != "hub":
            return _load_local(place), None
        if not hub.is_offline() and hub.is_reachable():
            _require_repository(name)
            with hub.shown(name, "dataset"):
                return _read(name, lambda: datasets.load_dataset(name, place.config), is_remote=True), None
        why = "offline" if hub.is_offline() else f"{hub.endpoint()} cannot be reached"
        missing = (
            f"data set `{name}`: no such folder, not in the local cache, and {why}; give a folder of images, "
            f"put its copy into a folder of $GTOOL_DATA, or use --dataset {SCENES}"
        )
        with _no_network():
            tables = _read(name, lambda: datasets.load_dataset(name, place.config), missing)
        note = f"{name}: the hub cannot be reached; its copy in the local cache is used"
        return tables, None if hub.is_offline() else note


def require_on_hub(place: Place) -> None:
    """Find out as `open_table` does, but without a download, whether the hub has a data set.

    One that gtool has a short name for is taken to be there where the hub cannot be asked.
    """
    if hub.is_reachable():
        _require_repository(place.repository)
    elif place.repository not in {name.partition(":")[0] for name in SHORT_NAMES.values()}:
        read_tables(place)


def _load_local(place: Place) -> Tables:
    import datasets

    path, name = place.path, str(place.path)
    assert path is not None
    if path.is_dir():
        if (path / ".huggingface.yaml").exists():
            raise DataError(f"{name}: .huggingface.yaml is not read; describe the tables in README.md")
        _require_own_files(_named_files(path), name)
    if place.kind == "arrow":
        with _bounded():
            return _read(name, lambda: datasets.load_from_disk(name))
    if path.is_dir() and _card(path).keys() & {"configs", "dataset_info"}:  # describe the tables beside them
        source = {"path": str(path.resolve()), "name": place.config}
    else:
        source = {"path": "parquet", "data_dir" if path.is_dir() else "data_files": name}
    on_disk = sum(file.stat().st_size for file in files_of(path, (".parquet",)))
    cache = str(cache_dir() / "tables")
    with _no_network(), _bounded(MOST_UNPACKED + LARGEST_RATIO * on_disk):
        return _read(name, lambda: datasets.load_dataset(**source, cache_dir=cache, batch_size=ROWS_AT_ONCE))


@contextmanager
def _bounded(file: int | None = None) -> Iterator[None]:
    """Unpack tables within MOST_MEMORY and a file of so many bytes."""
    import pyarrow

    pool = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others hold memory that they do not use
    try:
        with limited(MOST_MEMORY, file):
            try:
                yield
            except DataError:
                _wait_for_threads()
                raise
    finally:
        pyarrow.set_memory_pool(pool)


def _wait_for_threads() -> None:
    """Wait, 5 s at most, until no thread of this process is busy.

    After an error the reader still unpacks rows ahead, in threads that abort the process when it ends before them.
    https://github.com/apache/arrow/issues/34314
    """
    for _ in range(50):
        used = time.process_time()
        time.sleep(0.1)
        if time.process_time() - used < 0.02:
            return


def files_of(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a local table: of a folder those with these suffixes, of a pattern those that fit."""
    if path.is_dir():
        return sorted(visible_files(path, suffixes))
    return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]


def _card(folder: Path) -> Mapping[str, Any]:
    """Return the header of a README in the hub's layout; empty without one."""
    import yaml  # type: ignore[import-untyped]

    file = folder / "README.md"
    if not file.is_file():
        return {}
    with reading(file, "description of a data set"):
        text = read_bytes(file, MOST_CARD).decode("utf-8", "replace")
        header = re.match(r"\s*---[\r\n]+(.*?)[\r\n]+---(\s|$)", text, re.DOTALL)
        if header is None:
            return {}
        # An alias stands for as much as its writer likes.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(header[1], yaml.SafeLoader)):
            raise ValueError("its header has YAML aliases")
        card = yaml.safe_load(header[1]) or {}
        check_plain(card)
        return dict(card)


def _named_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the files that a data set of a folder names, with the file that names them."""
    for name in _strings([_card(folder).get("configs")]):
        yield name, "README.md"
    for state in sorted(
        (*folder.glob("dataset_dict.json"), *folder.glob("state.json"), *folder.glob("*/state.json"))
    ):
        with reading(state, "description of a saved set"):
            values = parse_json(read_bytes(state))
            named = values.get("splits", []) + [file["filename"] for file in values.get("_data_files", [])]
        yield from ((name, state.relative_to(folder).as_posix()) for name in _strings(named))


def _strings(value: Any) -> Iterator[str]:
    """Yield all texts in nested lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)


def _require_own_files(named: Iterable[tuple[str, str]], where: str) -> None:
    """Raise DataError for a file that lies outside of the data set that names it."""
    for name, by in named:
        parts = name.replace("\\", "/").split("/")
        if is_url(name) or name.startswith(("/", "~")) or ".." in parts or re.match("[A-Za-z]:", name):
            what = "a URL" if is_url(name) else "outside of its folder"
            raise DataError(f"{where}: {by} names {name}, {what}, which is not read")


def _require_repository(repository: str) -> None:
    """Ask the hub whether it has the data set, in a few seconds.

    Raises:
        DataError: it has none of this name, or only for some.
        NetworkError: it does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        card = HfApi(endpoint=hub.endpoint()).dataset_info(repository, timeout=HUB_SECONDS).card_data
    # Whatever the client raises in this one call, with its HTTP library of the day: no connection.
    except Exception as bad:
        if not (why := hub.refusal(bad)):
            said = hub.rate_limit(bad) or f"{hub.endpoint()} does not answer: {_reason(bad)}"
            raise NetworkError(f"{repository}: {said}") from None
        known = [SCENES, *SHORT_NAMES, *(name.partition(":")[0] for name in SHORT_NAMES.values())]
        is_named_so = type(bad) is RepositoryNotFoundError and repository not in known
        hint = did_you_mean(repository, known) if is_named_so else ""
        raise DataError(
            f"data set `{repository}`: no such folder, and {why}{hint if hint.startswith('; did') else ''}"
        ) from None
    configs = card.get("configs") if card else None
    _require_own_files(((name, "README.md") for name in _strings(configs)), repository)


def _read(name: str, load: Callable[[], Any], missing: str = "", *, is_remote: bool = False) -> Tables:
    """Call the library; what it raises becomes a DataError of one line, or a NetworkError where nothing is there.

    missing: what to say then. is_remote: the library downloads.

    Returns split -> rows; a saved set without splits is one called `train`.
    """
    try:
        loaded = load()
    # Readers of tables from strangers raise errors of arrow, yaml, fsspec and their own.
    except Exception as bad:
        if missing and isinstance(bad, ConnectionError | FileNotFoundError):
            raise NetworkError(missing) from None
        cause = bad.__cause__ or bad
        if is_remote and (broken := next(filter(_is_of_network, (cause, bad)), None)):
            raise NetworkError(f"{name}: {hub.broken_off(broken)}") from None
        said = _reason(cause, lines=2)  # the second names the choices
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.EFBIG):
            said = "unpacked, it is far larger than a file of its size may be"
        if "corresponds to no data" in said:
            said = "it has no rows"
        if "Couldn't cast" in said:
            said += (
                "; its tables differ in their columns: name one of them, or a folder of tables that are alike"
            )
        if "onfig name is missing" in said:
            said += f"; name it after a colon, as in `{name}:configuration`"
        raise DataError(f"{name}: cannot be read: {said}") from bad
    if isinstance(loaded, dict):
        return {str(split): rows for split, rows in loaded.items()}
    return {str(loaded.split or "train"): loaded}


def _is_of_network(bad: BaseException) -> bool:
    libraries = {kind.__module__.partition(".")[0] for kind in type(bad).__mro__}
    return isinstance(bad, ConnectionError | TimeoutError) or bool(libraries & _OF_NETWORK)


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

    disabled, had_bars = logging.root.manager.disable, not datasets.are_progress_bars_disabled()
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if had_bars:
            datasets.enable_progress_bars()
