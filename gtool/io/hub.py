"""The Hugging Face hub, asked with patience measured in seconds.

The hub's own client takes 23 seconds and six tries to say that the network is dead, whatever time-out it is given
(measured with huggingface_hub 2.4); here one short probe comes first.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from gtool.errors import CheckpointError, NetworkError
from gtool.reading import reason

PROBE_SECONDS = 2.5


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
    """Return a file of a hub repository, from the local cache or the network.

    Raises:
        NetworkError: not cached, and the hub cannot be reached or the download broke off.
        CheckpointError: the repository or the file does not exist, or not for this user.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if found := cached(repository, filename):
        return found
    if not is_reachable():
        raise NetworkError(
            f"{repository}: no such file here, and the hub cannot be reached; name a run folder or a .safetensors file"
        )
    try:
        return Path(hf_hub_download(repository, filename, endpoint=endpoint()))
    except Exception as bad:  # of the client, or of its HTTP library of the day
        # What the client says when it could not ask: the cause is what matters.
        cause = (bad.__cause__ or bad) if isinstance(bad, LocalEntryNotFoundError) else bad
        if isinstance(bad, EntryNotFoundError) and cause is bad:
            raise CheckpointError(f"{repository}: the repository holds no {filename}") from None
        if why := refusal(cause):
            raise CheckpointError(f"{repository}: no such file here, and {why}") from None
        raise NetworkError(f"{repository}: {broken_off(cause)}") from None


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
    return ""


def broken_off(bad: BaseException) -> str:
    """Say that a download has ended before its time, and why."""
    why = reason(bad)
    return f"the download broke off: {why}; the same command again goes on where it ended"
