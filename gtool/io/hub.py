"""The Hugging Face hub, asked with patience measured in seconds.

The hub's own client takes 23 seconds and six tries to say that the network is dead, whatever time-out it is given
(measured with huggingface_hub 2.4); here one short probe comes first.
"""

import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gtool import console
from gtool.errors import CheckpointError, NetworkError
from gtool.reading import reason

PROBE_SECONDS = 2.5
WATCH_SECONDS = 0.5  # between two looks at what has come
GOES_ON = "goes on with what is missing"  # the client keeps files that are whole


def is_offline() -> bool:
    """Say whether the user asked for no network: HF_HUB_OFFLINE, HF_DATASETS_OFFLINE or TRANSFORMERS_OFFLINE."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in names)


def endpoint() -> str:
    """Return the hub's address ($HF_ENDPOINT or the public one)."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def is_reachable(url: str | None = None) -> bool:
    """Say within PROBE_SECONDS whether the hub (or the server of `url`, or a proxy) accepts a connection."""
    if is_offline():
        return False
    address = urlsplit(url or endpoint())
    variable = f"{address.scheme}_proxy"
    if proxy := os.environ.get(variable) or os.environ.get(variable.upper()):
        address = urlsplit(proxy)
    port = address.port or (443 if address.scheme == "https" else 80)
    reached = threading.Event()

    def probe() -> None:
        try:
            socket.create_connection((address.hostname, port), timeout=PROBE_SECONDS).close()
            reached.set()
        except OSError:
            pass

    # In a thread, because name resolution has no time-out of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return reached.is_set()


def cached(repository: str, filename: str) -> Path | None:
    """Return a file of a hub repository if it is in the local cache."""
    from huggingface_hub import try_to_load_from_cache  # slow to import, and few commands ask the hub

    found = try_to_load_from_cache(repository, filename)
    return Path(found) if isinstance(found, str) else None


def download(repository: str, filename: str) -> Path:
    """Return a file of a hub repository as it is there now; out of reach, as the local cache has it.

    Raises:
        NetworkError: not cached, and the hub cannot be reached or the download broke off.
        CheckpointError: the repository or the file does not exist, or not for this user.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    if not is_reachable():
        if found := cached(repository, filename):
            if not is_offline():
                console.notice(
                    f"{repository}: the hub cannot be reached; its copy in the local cache is used"
                )
            return found
        raise NetworkError(
            f"{repository}: no such file here, and the hub cannot be reached; name a run folder or a .safetensors file"
        )
    try:
        try:  # asked once, because the client would ask six times whether it may
            size = get_hf_file_metadata(hf_hub_url(repository, filename, endpoint=endpoint())).size
        except HfHubHTTPError as bad:
            if bad.response.status_code < 500:
                raise
            size = None
        with shown(repository, "model", size):
            return Path(hf_hub_download(repository, filename, endpoint=endpoint()))
    except Exception as bad:  # of the client, or of its HTTP library of the day
        raise _failed(bad, repository, filename) from None


def _failed(bad: Exception, repository: str, filename: str) -> CheckpointError | NetworkError:
    """Say what kept a file from coming."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    # What the client says when it could not ask: the cause is what matters.
    cause = (bad.__cause__ or bad) if isinstance(bad, LocalEntryNotFoundError) else bad
    if isinstance(bad, EntryNotFoundError) and cause is bad:
        return CheckpointError(f"{repository}: the repository holds no {filename}{_others(repository)}")
    if why := refusal(cause):
        return CheckpointError(f"{repository}: no such file here, and {why}")
    return NetworkError(f"{repository}: {broken_off(cause)}")


def _others(repository: str) -> str:
    """Name the weights that a repository has, for one who asked for others."""
    from huggingface_hub import HfApi

    try:
        files = HfApi(endpoint=endpoint()).model_info(repository, timeout=PROBE_SECONDS).siblings or []
    except Exception:  # only more to say would come of it
        return ""
    weights = [file.rfilename for file in files if file.rfilename.endswith(".safetensors")]
    return (
        f"; name one of its files: {', '.join(f'{repository}:{name}' for name in weights[:5])}"
        if weights
        else ""
    )


@contextmanager
def shown(repository: str, kind: str, total: int | None = None) -> Iterator[None]:
    """Show how much of a repository has come while the block downloads it, of `total` bytes where that is known.

    The client's own bar says nothing in a log, so the files that grow in its cache are looked at.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}" / "blobs"
    before = _sizes(folder)

    def is_coming() -> bool:
        return _sizes(folder) != before

    def look() -> tuple[float, str]:
        come = sum(_sizes(folder).values()) - sum(before.values())
        of = f" of {total / 1e6:.1f}" if total else ""
        return come, f"{come / 1e6:.1f}{of} MB"

    # The word is right for a data set, too, which is unpacked when all of it has come.
    with _watched(f"fetching {repository}", is_coming, look, total):
        yield


@contextmanager
def _watched(
    title: str, has_begun: Callable[[], bool], look: Callable[[], tuple[float, str]], total: float | None
) -> Iterator[None]:
    """Show from a thread what the block does, once that has begun; the client's own bars and lines are kept away."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    over, had_bars, before = threading.Event(), not are_progress_bars_disabled(), logging.root.manager.disable

    def watch() -> None:
        while not has_begun():
            if over.wait(WATCH_SECONDS):
                return
        console.notice(f"{title}; should that break off, the same command {GOES_ON}")
        with console.progress(title) as update:
            while not over.wait(WATCH_SECONDS):
                done, note = look()
                update(done, total, note)

    watcher = threading.Thread(target=watch, daemon=True)
    disable_progress_bars()
    logging.disable(logging.CRITICAL)
    watcher.start()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        over.set()
        watcher.join()
        logging.disable(before)
        if had_bars:
            enable_progress_bars()


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Send a folder to a repository of the hub, which is made if there is none; return its address.

    Raises:
        NetworkError: the hub cannot be reached, or the upload broke off.
        CheckpointError: it does not know this user, or does not let them write there.
    """
    from huggingface_hub import HfApi

    if not is_reachable():
        raise NetworkError(f"{repository}: the hub cannot be reached; --dry-run writes the folder alone")
    api, start, size = HfApi(endpoint=endpoint()), time.monotonic(), sum(_sizes(folder).values()) / 1e6

    def look() -> tuple[float, str]:
        return 0, f"{size:.1f} MB, for {console.duration(time.monotonic() - start)} so far"

    try:
        with _watched(f"sending to {repository}", lambda: True, look, None):
            api.create_repo(repository, private=private or None, exist_ok=True)
            sent = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="Send a model of gtool"
            )
    except Exception as bad:  # of the client, or of its HTTP library of the day
        cause = bad.__cause__ or bad  # of a file that could not be sent
        status = getattr(getattr(cause, "response", None), "status_code", 0)
        if status in (401, 403):
            known = "does not know you" if status == 401 else "does not let you write there"
            raise CheckpointError(
                f"{repository}: the hub {known}; run `hf auth login` with a token that may write"
            ) from None
        raise NetworkError(f"{repository}: {broken_off(cause, 'upload')}") from None
    return str(sent.commit_url).partition("/commit/")[0]


def _sizes(folder: Path) -> dict[Path, int]:
    """Return the bytes of each file in a folder, some of which may be renamed meanwhile."""
    sizes = {}
    for path in folder.glob("*"):
        with suppress(OSError):
            sizes[path] = path.stat().st_size
    return sizes


def refusal(bad: BaseException) -> str:
    """Say why the hub does not show a repository: it has none, or not for this user; empty where neither is so."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    status = bad.response.status_code if isinstance(bad, HfHubHTTPError) else 0
    if isinstance(bad, GatedRepoError):
        return "its owner grants access on the hub; ask for it there, then run `hf auth login`"
    if status == 403:
        return "the hub does not let you read it; run `hf auth login` as somebody who may"
    if isinstance(bad, RepositoryNotFoundError):
        private = ", or a private one, which takes `hf auth login`" if status == 401 else ""
        return f"none of this name on the hub{private}"
    if status == 401:
        return "the hub does not know your token; run `hf auth login`"
    return ""


def broken_off(bad: BaseException, what: str = "download") -> str:
    """Say that a download has ended before its time, and why."""
    return rate_limit(bad) or f"the {what} broke off: {reason(bad)}; the same command again {GOES_ON}"


def rate_limit(bad: BaseException) -> str:
    """Say how long to wait where the hub answers that it is asked too often; empty where it does not."""
    response: Any = getattr(bad, "response", None)
    if response is None or response.status_code != 429:
        return ""
    wait = response.headers.get("Retry-After", "")
    when = f"{wait} s" if wait.isdigit() else "some minutes"
    return f"the hub limits how often it is asked (429); wait {when}, then the same command again"
