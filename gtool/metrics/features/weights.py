"""Finding the weights of a metric's network: on this machine first, then, with a network, at their publishers.

A file that was not named by the user must carry a published SHA-256: an interrupted download or a file
planted in a shared folder is passed over and reported. A file that the user names is taken as it is, and its
digest goes into the protocol string, so that a score with other weights can never pass for a published one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gtool.errors import CheckpointError, NetworkError
from gtool.io.files import cache_dir
from gtool.io.hub import cached, is_offline, is_reachable
from gtool.metrics.features.downloads import Progress, fetch

SHARED = Path("/tmp")  # anybody can write there: only files of this user count


@dataclass(frozen=True)
class Published:
    """A file that carries the weights: its usual name, digest, and where its publisher keeps it.

    repository: on the hub, whose local cache is the only place where a name like this means anything.
    """

    name: str
    sha256: str
    url: str | None = None
    repository: str | None = None


@dataclass(frozen=True)
class Network:
    """A network whose weights are looked for, and what to say where there are none."""

    title: str
    label: str  # in protocol strings, for published weights; others have the title and their digest there
    flag: str
    variable: str  # of the environment
    needed_by: str
    instead: str  # what works without
    published: tuple[Published, ...]
    folders: Callable[[], tuple[Path, ...]]  # where others leave the files, besides our own cache

    @property
    def key(self) -> str:
        """What records and reports call it."""
        return self.title.lower()


def _torch_hub() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


_STATE_DICT = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_TORCHSCRIPT = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
INCEPTION = Network(
    title="Inception",
    label="inception-2015",
    flag="--weights",
    variable="GTOOL_INCEPTION_WEIGHTS",
    needed_by="FID, KID, IS, precision and recall, density and coverage need",
    instead="score without any weights: --rfd, --swd",
    published=(
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
        Published("weights-inception-2015-12-05-6726825d.pth", _STATE_DICT),
    ),
    folders=lambda: (SHARED, _torch_hub()),  # clean-fid's, and that of pytorch-fid and torch-fidelity
)
_OPENAI = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
CLIP = Network(
    title="CLIP",
    label="clip-vit-b-32",
    flag="--clip-weights",
    variable="GTOOL_CLIP_WEIGHTS",
    needed_by="CLIP-FID needs",
    instead="score by --fid, or without any weights: --rfd, --swd",
    published=(
        Published(
            "ViT-B-32.pt", _OPENAI, f"https://openaipublic.azureedge.net/clip/models/{_OPENAI}/ViT-B-32.pt"
        ),
        Published(
            "pytorch_model.bin",
            "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
            repository="openai/clip-vit-base-patch32",
        ),
        Published(f"clip-vit-b-32-{_OPENAI}.pt", _OPENAI),  # as torch-fidelity keeps it
    ),
    # That of the package clip, and that of torch-fidelity.
    folders=lambda: (Path("~/.cache/clip").expanduser(), _torch_hub()),
)
NETWORKS = (INCEPTION, CLIP)


@dataclass(frozen=True)
class WeightsFile:
    """A file with weights of a network and its SHA-256."""

    network: Network
    path: Path
    sha256: str

    @property
    def is_published(self) -> bool:
        """Whether these are the weights that published scores were made with."""
        return any(self.sha256 == published.sha256 for published in self.network.published)

    @property
    def label(self) -> str:
        """What protocol strings call it: the network's label for published weights only."""
        return self.network.label if self.is_published else f"{self.network.key}-{self.sha256[:8]}"


def find_weights(
    network: Network, named: Path | None = None, progress: Progress | None = None
) -> WeightsFile:
    """Return the weights: `named`, else those of the environment variable, else of a known place, else a download.

    Raises:
        CheckpointError: the file that was named is not there.
        NetworkError: found nowhere and not to be had; says where it was looked for and what works without.
    """
    variable = os.environ.get(network.variable)
    if named is not None or variable:
        path = named or Path(str(variable)).expanduser()
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file ({network.flag if named else network.variable})")
        return WeightsFile(network, path, digest_of(path))
    found, damaged = local_weights(network)
    return found or _download(network, damaged, progress)


def local_weights(network: Network) -> tuple[WeightsFile | None, list[Path]]:
    """Return the weights if they lie in a known place, and files that have their name but not their bytes."""
    damaged: list[Path] = []
    for path, published in _places(network):
        if path.is_file():
            if (found := digest_of(path)) == published.sha256:
                return WeightsFile(network, path, found), damaged
            damaged.append(path)
    return None, damaged


def are_same_weights(one: str, other: str) -> bool:
    """Say whether two digests are of one file, or of two that carry one published network."""
    published = ({file.sha256 for file in network.published} for network in NETWORKS)
    return one == other or any({one, other} <= digests for digests in published)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_published(published: Published, path: Path) -> bool:
    return digest_of(path) == published.sha256


def _folders(network: Network) -> tuple[Path, ...]:
    return (cache_dir() / "weights", *network.folders())


def _places(network: Network) -> Iterator[tuple[Path, Published]]:
    """Yield where files may lie: our cache, folders of other programs, the hub's cache."""
    for folder in _folders(network):
        for published in (one for one in network.published if one.repository is None):
            path = folder / published.name
            if folder != SHARED or _is_ours(path):
                yield path, published
    for published in network.published:
        if published.repository and (found := cached(published.repository, published.name)):
            yield found, published


def _is_ours(path: Path) -> bool:
    """Say whether this user owns a file in a folder that anybody can write to."""
    return os.name == "posix" and path.is_file() and path.stat().st_uid == os.getuid()


def _download(network: Network, damaged: list[Path], progress: Progress | None) -> WeightsFile:
    reasons = ["the environment asks for offline"] if is_offline() else []
    offered = [published for published in network.published if published.url and not reasons]
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
        return WeightsFile(network, target, published.sha256)
    raise NetworkError(_not_found(network, damaged, "; ".join(reasons)))


def _not_found(network: Network, damaged: list[Path], reason: str) -> str:
    names = " or ".join(published.name for published in network.published if published.repository is None)
    places = ", ".join(
        f"{folder} (files of yours)" if folder == SHARED else str(folder) for folder in _folders(network)
    )
    hub = "".join(f", nor {one.name} of {one.repository}" for one in network.published if one.repository)
    wrong = f"; passed over, not the published bytes: {', '.join(map(str, damaged))}" if damaged else ""
    return (
        f"{network.needed_by} the {network.title} weights, {names}: not in {places}{hub}{wrong}; "
        f"not downloaded: {reason}; name a copy with {network.flag} FILE or {network.variable}, or {network.instead}"
    )
