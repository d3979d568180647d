"""Files of a publisher, fetched by clean-fid's downloader: under a lock, checked, and only then under their name."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from cleanfid.downloads_helper import check_download_url
from filelock import FileLock

from gtool import console
from gtool.errors import NetworkError
from gtool.io.hub import is_offline, is_reachable

TIMEOUT_SECONDS = 30.0  # between two packets


def download(url: str, target: Path, is_good: Callable[[Path], bool]) -> Path:
    """Return `target`, downloaded unless a good file is there; processes that want the same one wait for the first.

    Raises:
        NetworkError: no network, or a file that is not good; nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if target.is_file() and is_good(target):
            return target
        if is_offline():
            raise NetworkError("the environment asks for offline")
        if not is_reachable(url):
            raise NetworkError(f"{urlsplit(url).hostname} cannot be reached")
        console.notice(f"downloading {url}")
        before = socket.getdefaulttimeout()
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            try:
                socket.setdefaulttimeout(TIMEOUT_SECONDS)  # clean-fid's downloader has none
                with contextlib.redirect_stdout(io.StringIO()):  # it speaks of statistics
                    fetched = Path(check_download_url(folder, url))
            except (OSError, http.client.HTTPException) as bad:
                raise NetworkError(f"{url}: {bad}") from None
            finally:
                socket.setdefaulttimeout(before)
            if not is_good(fetched):
                raise NetworkError(f"{url} did not give the published file")
            os.replace(fetched, target)
    return target
