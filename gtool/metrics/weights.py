"""Finding the Inception weights: on this machine first, then, with a network, at their publishers.

A file that was not named by the user must carry the published SHA-256: an interrupted download or a file
planted in a shared folder is passed over and reported. A file that the user names is taken as it is, and its
digest goes into the protocol string, so that a score with other weights can never pass for a FID.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gtool.checkpoint import cache_dir
from gtool.errors import CheckpointError, NetworkError
from gtool.hub import is_offline, is_reachable
from gtool.metrics.downloads import Progress, fetch

VARIABLE = "GTOOL_INCEPTION_WEIGHTS"
_STATE_DICT = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_TORCHSCRIPT = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


@dataclass(frozen=True)
class Published:
    """A file that carries the weights: its usual name, digest, and where its publisher keeps it."""

    name: str
    sha256: str
    url: str | None


PUBLISHED = (
    Published(
        "pt_inception-2015-12-05-6726825d.pth",
        _STATE_DICT,
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    Published(
        "inception-2015-12-05.pt",
        _TORCHSCRIPT,
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    ),
    Published("weights-inception-2015-12-05-6726825d.pth", _STATE_DICT, None),
)


@dataclass(frozen=True)
class InceptionFile:
    """A file with weights and its SHA-256."""

    path: Path
    sha256: str

    @property
    def is_published(self) -> bool:
        """Whether these are the weights that published scores were made with."""
        return self.sha256 in (_STATE_DICT, _TORCHSCRIPT)

    @property
    def label(self) -> str:
        """What protocol strings call it: `inception-2015` for published weights only."""
        return "inception-2015" if self.is_published else f"inception-{self.sha256[:8]}"


def find_inception(named: Path | None = None, progress: Progress | None = None) -> InceptionFile:
    """Return the weights: `named`, else $GTOOL_INCEPTION_WEIGHTS, else a known place, else a download.

    Raises:
        CheckpointError: the file that was named is not there.
        NetworkError: found nowhere and not to be had; says where it was looked for and what works without.
    """
    variable = os.environ.get(VARIABLE)
    if named is not None or variable:
        path = named or Path(str(variable)).expanduser()
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file ({'--weights' if named else VARIABLE})")
        return InceptionFile(path, digest_of(path))
    found, damaged = local_inception()
    return found or _download(damaged, progress)


def local_inception() -> tuple[InceptionFile | None, list[Path]]:
    """Return the weights if they lie in a known place, and files that have their name but not their bytes."""
    damaged: list[Path] = []
    for path, published in _places():
        if path.is_file():
            if (found := digest_of(path)) == published.sha256:
                return InceptionFile(path, found), damaged
            damaged.append(path)
    return None, damaged


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_published(published: Published, path: Path) -> bool:
    return digest_of(path) == published.sha256


def _places() -> Iterator[tuple[Path, Published]]:
    """Yield where files may lie: our cache, clean-fid's /tmp when the file is ours, torch hub's folder."""
    import torch

    hub = Path(torch.hub.get_dir()) / "checkpoints"
    for folder in (cache_dir() / "weights", Path("/tmp"), hub):
        for published in PUBLISHED:
            path = folder / published.name
            if folder != Path("/tmp") or _is_ours(path):
                yield path, published


def _is_ours(path: Path) -> bool:
    """Say whether this user owns a file in a folder that anybody can write to."""
    return os.name == "posix" and path.is_file() and path.stat().st_uid == os.getuid()


def _download(damaged: list[Path], progress: Progress | None) -> InceptionFile:
    reasons = ["the environment asks for offline"] if is_offline() else []
    offered = [published for published in PUBLISHED if published.url and not reasons]
    with ThreadPoolExecutor() as pool:  # a dead network is found out about once, not once a server
        answers = list(pool.map(is_reachable, [published.url for published in offered]))
    for published, is_there in zip(offered, answers, strict=True):
        if not is_there:
            reasons.append(f"{str(published.url).split('/')[2]} cannot be reached")
            continue
        target = cache_dir() / "weights" / published.name
        try:
            fetch(str(published.url), target, partial(_is_published, published), progress)
        except NetworkError as bad:
            reasons.append(str(bad))
            continue
        return InceptionFile(target, published.sha256)
    raise NetworkError(_not_found(damaged, "; ".join(reasons)))


def _not_found(damaged: list[Path], reason: str) -> str:
    import torch

    names = " or ".join(published.name for published in PUBLISHED)
    places = f"{cache_dir() / 'weights'}, /tmp (files of yours), {Path(torch.hub.get_dir()) / 'checkpoints'}"
    wrong = f"; passed over, not the published bytes: {', '.join(map(str, damaged))}" if damaged else ""
    return (
        "FID, KID, IS, precision and recall, density and coverage need the Inception weights, "
        f"{names}: not in {places}{wrong}; not downloaded: {reason}; "
        f"name a copy with --weights FILE or {VARIABLE}, or score without any weights: --rfd, --swd"
    )
