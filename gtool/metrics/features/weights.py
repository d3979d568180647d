"""Finding the weights of a metric's network: on this machine first, then, with a network, at their publishers.

A file that was not named by the user must carry a published SHA-256: an interrupted download or a file planted in a
shared folder is passed over and reported. A file that the user names is taken as it is, and its digest goes into the
protocol string, so that a score with other weights can never pass for a published one.
"""

import http.client
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from cleanfid.downloads_helper import inception_url

from gtool import console
from gtool.errors import CheckpointError, NetworkError
from gtool.io import hub
from gtool.io.files import atomic_write, cache_dir, digest_of
from gtool.io.locks import one_at_a_time

TIMEOUT_SECONDS = 30.0  # between two packets of a download
SHARED = Path("/tmp")  # where clean-fid keeps its file, and anybody can write: files of this user alone count


@dataclass(frozen=True)
class Network:
    """A network whose weights are looked for, and what to say where there are none.

    label: in protocol strings, for published weights; others have the title and their digest there.
    variable: of the environment, which names a file as `flag` does.
    files: names of files that carry the published weights, and how their SHA-256 begins; the first is downloaded.
    source: the URL of the first file, or the hub's repository that holds it.
    """

    title: str
    label: str
    flag: str
    variable: str
    needed_by: str
    instead: str  # what works without
    files: Mapping[str, str]
    source: str

    @property
    def key(self) -> str:
        """What records and reports call it."""
        return self.title.lower()

    @property
    def is_on_hub(self) -> bool:
        return "://" not in self.source


_STATE_DICT = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION = Network(
    "Inception",
    "inception-2015",
    "--weights",
    "GTOOL_INCEPTION_WEIGHTS",
    needed_by="FID, KID, IS, precision and recall, density and coverage need",
    instead="score without any weights: --rfd, --swd",
    files={
        Path(inception_url).name: "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        "pt_inception-2015-12-05-6726825d.pth": _STATE_DICT,
        "weights-inception-2015-12-05-6726825d.pth": _STATE_DICT,
    },
    source=inception_url,
)
CLIP = Network(
    "CLIP",
    "clip-vit-b-32",
    "--clip-weights",
    "GTOOL_CLIP_WEIGHTS",
    needed_by="CLIP-FID needs",
    instead="score by --fid, or without any weights: --rfd, --swd",
    files={"pytorch_model.bin": "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f"},
    source="openai/clip-vit-base-patch32",
)
CLIP_LARGE = Network(
    "CLIP-L",
    "clip-vit-l-14-336",
    "--clip-large-weights",
    "GTOOL_CLIP_LARGE_WEIGHTS",
    needed_by="CMMD needs",
    instead="score by --kid, or without any weights: --rfd, --swd",
    files={"pytorch_model.bin": "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801"},
    source="openai/clip-vit-large-patch14-336",
)
DINOV2 = {
    size: Network(
        f"DINOv2-{size[4].upper()}",
        f"dinov2-{size}",
        "--dinov2-weights",
        "GTOOL_DINOV2_WEIGHTS",
        needed_by="FD-DINOv2 needs",
        instead="score by --fid, or without any weights: --rfd, --swd",
        files={"model.safetensors": digest},
        source=f"facebook/dinov2-{name}",
    )
    for size, name, digest in (
        ("vit-s-14", "small", "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1"),
        ("vit-b-14", "base", "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841"),
        ("vit-l-14", "large", "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23"),
    )
}
VGG16 = Network(
    "VGG16",
    "vgg16",
    "",
    "GTOOL_VGG16_WEIGHTS",
    needed_by="LPIPS needs",
    instead="do without: --paired, or reconstruction.perceptual_kind=gradients in training",
    files={"vgg16-397923af.pth": "397923af"},
    source="https://download.pytorch.org/models/vgg16-397923af.pth",
)
NETWORKS = (INCEPTION, CLIP, CLIP_LARGE, *DINOV2.values())


@dataclass(frozen=True)
class WeightsFile:
    """A file with weights of a network and its SHA-256."""

    network: Network
    path: Path
    sha256: str

    @property
    def is_published(self) -> bool:
        """Whether these are the weights that published scores were made with."""
        return self.sha256.startswith(tuple(self.network.files.values()))

    @property
    def label(self) -> str:
        """What protocol strings call it: the network's label for published weights only."""
        return self.network.label if self.is_published else f"{self.network.key}-{self.sha256[:8]}"


def find_weights(network: Network, named: Path | None = None) -> WeightsFile:
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
    if found is not None:
        return found
    name, digest = next(iter(network.files.items()))
    try:
        if network.is_on_hub:
            path = hub.download(network.source, name)
            if not digest_of(path).startswith(digest):
                raise NetworkError(f"{path} is not the published file")
        else:
            target = cache_dir() / "weights" / name
            path = download(network.source, target, lambda one: digest_of(one).startswith(digest))
    except NetworkError as bad:
        places = [f"the hub's cache ({network.source})"] if network.is_on_hub else map(str, _folders())
        wrong = f"; passed over, not the published bytes: {', '.join(map(str, damaged))}" if damaged else ""
        flag = f"{network.flag} FILE or " if network.flag else ""
        raise NetworkError(
            f"{network.needed_by} the {network.title} weights, {' or '.join(network.files)}: not in "
            f"{', '.join(places)}{wrong}; not downloaded: {bad}; name a copy with {flag}{network.variable}, or "
            f"{network.instead}"
        ) from None
    return WeightsFile(network, path, digest_of(path))


def local_weights(network: Network) -> tuple[WeightsFile | None, list[Path]]:
    """Return the weights if they lie in a known place, and files that have their name but not their bytes."""
    damaged: list[Path] = []
    for path, digest in _places(network):
        if (found := digest_of(path)).startswith(digest):
            return WeightsFile(network, path, found), damaged
        damaged.append(path)
    return None, damaged


def are_same_weights(one: str, other: str) -> bool:
    """Say whether two digests are of one file, or of two that carry one published network."""
    return one == other or any({one, other} <= set(network.files.values()) for network in NETWORKS)


def download(url: str, target: Path, is_good: Callable[[Path], bool]) -> Path:
    """Return `target`, downloaded unless a good file is there; processes that want the same one wait for the first.

    NetworkError where there is no network, or a file that is not good; nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target.with_suffix(".lock")):
        if target.is_file() and is_good(target):
            return target
        if hub.is_offline():
            raise NetworkError("the environment asks for offline")
        if not hub.is_reachable(url):
            raise NetworkError(f"{urlsplit(url).hostname} cannot be reached")
        console.notice(f"downloading {url}")
        with atomic_write(target) as temporary:
            try:
                with urlopen(url, timeout=TIMEOUT_SECONDS) as source, temporary.open("wb") as out:
                    shutil.copyfileobj(source, out)
            except (OSError, http.client.HTTPException) as bad:
                raise NetworkError(f"{url}: {bad}") from None
            if not is_good(temporary):
                raise NetworkError(f"{url} did not give the published file")
    return target


def _folders() -> list[Path]:
    """Where files are looked for: our cache, clean-fid's folder, that of pytorch-fid and torch-fidelity."""
    usual = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    cache = os.environ.get("TORCH_HOME") or usual
    return [cache_dir() / "weights", SHARED, Path(cache).expanduser() / "hub" / "checkpoints"]


def _places(network: Network) -> Iterator[tuple[Path, str]]:
    """Yield files that have the right name, and the digest that they must have."""
    if network.is_on_hub:
        found = ((hub.cached(network.source, name), digest) for name, digest in network.files.items())
        yield from ((path, digest) for path, digest in found if path)
        return
    for folder in _folders():
        for name, digest in network.files.items():
            path = folder / name
            is_ours = folder != SHARED or (
                os.name == "posix" and path.is_file() and path.stat().st_uid == os.getuid()
            )
            if path.is_file() and is_ours:
                yield path, digest
