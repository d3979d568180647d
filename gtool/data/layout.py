"""What the image files of a folder or a zip are: splits, classes, maps beside images. Decided here alone, from names.

Nothing is opened, so every rule can be tested with a list of names. docs/data.md has a table of what is taken for what.

- Folders called as splits (`train/`, `test2017/`, `val_images/`, also `faces_train/` beside `faces_test/`) are splits,
  at any depth. Beside two splits all else is left out; beside a single one it could be classes, and is refused.
- Folders and files called as maps (`masks/`, `gtFine/`, `7_mask.png`) are maps where names pair them with images: equal
  ones, or equal without the words of maps and images. Where none does, they are refused.
- Where the images lie one folder deep, in two folders or more, that folder is the class; a few beside are left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np

from gtool.errors import DataError

Folders = Literal["auto", "splits", "classes", "plain"]
Parts = tuple[str, ...]  # folders of a path

_SPLITS = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
    "pred": ("pred", "predict"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_SURE_IMAGES = frozenset(("images", "image", "imgs", "img"))  # others can be classes: photo, sketch
_ROLES = {  # of folders, by their words; the first that fits
    "depth": frozenset(("depth", "depths")),
    "segmentation": frozenset(
        (
            "masks",
            "mask",
            "segmentations",
            "segmentation",
            "segm",
            "seg",
            "semantic",
            "labels",
            "label",
            "maps",
            "map",
        )
    ).union(
        ("annotations", "annotation", "annot", "anno", "gt", "truths", "truth", "trimaps", "trimap", "matte")
    ),
    "image": _SURE_IMAGES.union(
        ("photos", "photo", "pictures", "picture", "rgb", "color", "input", "inputs")
    ),
}
_KINDS = ("segmentation", "depth")
# With a word of maps: pictures of maps, or of objects one by one; no labels of pixels.
_NO_LABELS = frozenset(("color", "colors", "colour", "colours", "rgb", "object", "objects", "parts")).union(
    ("instance", "instances", "panoptic", "overlay", "overlays")
)
_FILLER = frozenset(
    ("set", "data", "dataset", "left", "bit", "fine", "coarse", "class", "jpeg", "png", "ground")
).union(("full", "raw", "ids", "stuff", "thing", "pixel", "sat", "im"))
_NOT = frozenset(("with", "without", "no", "non", "not"))
_KNOWN = _FILLER.union(_NO_LABELS, _SPLIT_OF, *_ROLES.values())
_LOSSY = (".jpg", ".jpeg", ".webp")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TOKENS = re.compile(rf"\d+|{_WORDS.pattern}|[^\W\d_a-zA-Z]+")
_CALLED_AS_MAP = re.compile("mask|seg|label|gt|truth|anno|matte|trimap|depth", re.IGNORECASE)
_FEW = 10  # one in so many may lie beside folders, and is left out


def choose_split(available: Iterable[str], split: str, name: str) -> tuple[str, str | None]:
    """Return what the set calls the split that was asked for, and a note where its only one is taken instead.

    name: of the set, for messages.

    Raises:
        DataError: several splits, and none or several of them are the one asked for.
    """
    splits = sorted(available)
    exact = [split] if split in splits else [found for found in splits if found.lower() == split.lower()]
    group = _SPLIT_OF.get(split.lower())
    alike = [found for found in splits if group and _read_folder(found).split == group]
    plain = [found for found in alike if found.lower() in _SPLIT_OF]  # `train` before `train_extra`
    found = exact or (plain if len(plain) == 1 else alike)
    if len(found) > 1:
        raise DataError(
            f"{name}: several splits may be `{split}`: {', '.join(found)}; name one: data.split={found[0]}"
        )
    if found:
        return found[0], None
    if len(splits) == 1:
        return splits[0], f"no split `{split}`; its only one, `{splits[0]}`, is used"
    raise DataError(f"{name}: no split `{split}`; it has {', '.join(splits)}")


def sort_names(names: Iterable[str]) -> list[str]:
    """Return names of classes without repetition, sorted as text, or by value where all are numbers."""
    unique = sorted(set(names))
    return sorted(unique, key=int) if all(name.isdecimal() for name in unique) else unique


def count_of(number: int, what: str = "image") -> str:
    """Return `1 image`, `1,234 images`; what: in the singular."""
    return f"{number:,} {what if number == 1 else what + ('es' if what.endswith('s') else 's')}"


@dataclass(frozen=True)
class FolderContents:
    """What listed files are, by their numbers in the list.

    notes: what was left out, or taken in place of what was asked for.
    missing: by role (`class`, `segmentation`, `depth`), why there are none, where names say more than that.
    """

    images: list[int]  # of the split
    labels: np.ndarray | None = None  # int64, of the images
    class_names: tuple[str, ...] | None = None
    maps: dict[str, list[int | None]] = field(
        default_factory=dict
    )  # by kind: of each image; None without one
    split: str | None = None
    other_splits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


class _FolderName(NamedTuple):
    """What the name of a folder says."""

    split: str | None  # train, validation, test, pred
    role: str | None  # image, segmentation, depth; `none` of pictures of maps
    rest: Parts  # its words without that of the split
    is_sure: bool  # all words are known


class _File(NamedTuple):
    """An image file of the list, and what its path says of it."""

    number: int
    path: str
    split: str | None  # the folder of its split
    role: str | None
    of_role: str  # the folders to the one of its role, with a slash; empty without
    folders: Parts  # without those of split and role
    stem: str

    @property
    def key(self) -> tuple[str, ...]:
        """What a picture and its map have in common, with the folders and the split."""
        return _key_of(self.stem)

    @property
    def split_group(self) -> str | None:
        return None if self.split is None else _read_folder(self.split).split


def read_layout(
    names: Sequence[str],
    split: str,
    name: str,
    *,
    folders: Folders = "auto",
    segmentation_folder: str | None = None,
    twins: bool = True,
) -> FolderContents:
    """Decide what the image files of a folder or zip are.

    Args:
        names: of the files, with slashes, relative to the folder or zip.
        split: that was asked for.
        name: of the set, for messages.
        folders: what the user says that folders are: `splits`, `classes` or `plain` (neither, and no maps).
        segmentation_folder: that the user named; no other holds label maps.
        twins: a.jpg may lie beside a.png, and both are images.

    Raises:
        DataError: what could mean two things, or a split that is not there.
    """
    if folders == "plain":
        return FolderContents(list(range(len(names))))
    files = _read_paths(names, folders, segmentation_folder, name)
    images, maps, notes, missing = _pair(files, name, folders)
    if not twins:
        _refuse_twins(images, name)
    images, others, available = _divide(images, folders, name)
    notes += _left_out(others)
    chosen = None
    if available:
        chosen, note = choose_split(available, split, name)
        notes += [note] * bool(note)
    elif split != "train":
        notes.append(f"no splits: `{split}` is all of it")
    labelled, class_names, beside, missing["class"] = _find_classes(images, chosen)
    notes += _left_out(beside)
    left = {file.number for file in beside}
    of_split = [file for file in images if file.split == chosen and file.number not in left]
    of_images = {kind: [pairs.get(file.number) for file in of_split] for kind, pairs in maps.items()}
    labels = None
    if class_names:
        numbers = {class_: number for number, class_ in enumerate(class_names)}
        labels = np.array([numbers[labelled[file.number]] for file in of_split], np.int64)
    return FolderContents(
        [file.number for file in of_split],
        labels,
        class_names,
        {kind: found for kind, found in of_images.items() if any(number is not None for number in found)},
        chosen,
        tuple(sorted(available - {chosen})),
        tuple(notes),
        missing,
    )


# Words in names.


@cache
def _words(name: str) -> Parts:
    """Return the words of a name in lower case; those of known words (`trainannot`) taken apart."""
    return tuple(part for word in _WORDS.findall(name) for part in _cut(word.lower()) or (word.lower(),))


def _cut(word: str) -> Parts:
    """Return the known words that a word is made of; none where something is left."""
    if word in _KNOWN:
        return (word,)
    for place in range(len(word) - 2, 1, -1):
        if word[:place] in _KNOWN and (rest := _cut(word[place:])):
            return word[:place], *rest
    return ()


@cache
def _read_folder(name: str) -> _FolderName:
    words = _words(name)
    splits = [_SPLIT_OF[word] for word in words if word in _SPLIT_OF]
    is_sure = all(word in _KNOWN for word in words)
    role = next((role for role, known in _ROLES.items() if known & set(words)), None)
    if _NOT & set(words):  # with_mask, no_mask: what a picture shows
        role = None
    if role == "segmentation" and _NO_LABELS & set(words):
        role = "none"
    split = splits[0] if len(splits) == 1 else None
    return _FolderName(split, role, tuple(word for word in words if word not in _SPLIT_OF), is_sure)


def _key_of(stem: str) -> tuple[str, ...]:
    """Return the words and numbers of a file's name without those of images and maps."""
    tokens = [token.lower() for token in _TOKENS.findall(stem.replace("leftImg8bit", ""))]
    dropped = _FILLER.union(*_ROLES.values())
    return tuple(part for token in tokens for part in (_words(token) or (token,)) if part not in dropped)


def _kind_of_file(stem: str) -> str | None:
    """Return the kind of map that a file is called as, by its first or last word; `none` of a picture of a map."""
    if not _CALLED_AS_MAP.search(stem):
        return None
    words = tuple(word for word in _words(stem) if word not in ("ids", "parts"))
    if not words or _NOT & set(words[-2:]):
        return None
    if _NO_LABELS & {words[-1]}:
        return "none" if _ROLES["segmentation"] & set(words) else None
    ends = {words[0], words[-1]}
    return next((kind for kind in _KINDS if ends & _ROLES[kind]), None)


# Paths.


def _read_paths(names: Sequence[str], folders: Folders, segmentation: str | None, name: str) -> list[_File]:
    below: dict[Parts, set[str]] = defaultdict(set)
    parts_of = [tuple(path.split("/")) for path in names]
    all_folders = {parts[:-1] for parts in parts_of}
    shared = next(  # folders that all files lie in, and that say nothing
        (depth for depth, column in enumerate(zip(*all_folders, strict=False)) if len(set(column)) > 1),
        min(map(len, all_folders)),
    )
    for parts in all_folders:
        for depth, folder in enumerate(parts):
            below[parts[:depth]].add(folder)
    if segmentation and not any(segmentation in inside for inside in below.values()):
        raise DataError(f"{name}: no folder `{segmentation}`, which data.segmentation_folder names")

    @cache
    def read(parts: Parts) -> tuple[str | None, str | None, str, Parts]:
        split = role = None
        of_role, rest, is_open = "", [], False  # is_open: folders of the same role follow
        for depth, folder in enumerate(parts):
            is_split = split is None and _is_split(folder, below[parts[:depth]])
            if is_split:
                split = folder
            says = _role_among(folder, below[parts[:depth]]) if depth >= shared or is_split else None
            if segmentation:
                says = (
                    "segmentation" if folder == segmentation else ("none" if says == "segmentation" else says)
                )
            if folders == "classes":
                says = None
            if says and (role is None or (is_open and says == role)):
                role, is_open = says, True
                of_role = "/".join(parts[: depth + 1]) + "/"
            elif not is_split:
                rest.append(folder)
                is_open = False
        return split, role, of_role, tuple(rest)

    found = []
    for number, (path, parts) in enumerate(zip(names, parts_of, strict=True)):
        stem = parts[-1].rpartition(".")[0] or parts[-1]
        found.append(_File(number, path, *read(parts[:-1]), stem))
    return found


def _is_split(folder: str, siblings: set[str]) -> bool:
    """Say whether a folder is called as a split, alone or by comparison: `a_train` beside `a_test`."""
    own = _read_folder(folder)
    if own.split is None or own.is_sure:
        return own.split is not None
    others = map(_read_folder, siblings)
    return any(other.rest == own.rest and other.split not in (None, own.split) for other in others)


def _role_among(folder: str, siblings: set[str]) -> str | None:
    """Return the role of a folder: by its name, or by comparison, as of `faces-mask` beside `faces-img`."""
    own = _read_folder(folder)
    if any(set(_words(folder)) == set(_words(other)) - _NOT for other in siblings - {folder}):
        return None  # mask beside no_mask
    if own.is_sure or not own.role:
        return own.role
    roles = {_read_folder(sibling).role for sibling in siblings}
    fitting = roles.intersection(_KINDS) if own.role == "image" else "image" in roles
    return own.role if fitting else None


def _divide(images: list[_File], folders: Folders, name: str) -> tuple[list[_File], list[_File], set[str]]:
    """Return the images of all splits, those of none that are left out, and the splits."""
    splits = {file.split for file in images if file.split is not None}
    others = [file for file in images if file.split is None]
    if not splits or not others or folders == "splits" or len({_read_folder(s).split for s in splits}) > 1:
        return [file for file in images if not splits or file.split], others if splits else [], splits
    in_folders = any(file.folders for file in others)
    if folders == "classes":
        again = [f._replace(split=None, folders=tuple(f.path.split("/")[:-1])) for f in images]
        return again, [], set()
    if not in_folders and len(others) * _FEW <= len(images):
        return [file for file in images if file.split], others, splits
    raise DataError(
        f"{name}: `{min(splits)}` is called as a split, and {_some(others)} lie beside it: "
        "data.folders=splits leaves them out, =classes makes each folder a class, =plain takes all images as one set"
    )


# Maps.

Pairs = dict[int, int]  # number of an image -> of its map


def _pair(
    files: list[_File], name: str, folders: Folders
) -> tuple[list[_File], dict[str, Pairs], list[str], dict[str, str]]:
    """Return images, maps by kind, notes on what was left out, and why there are no maps of a kind.

    Raises:
        DataError: folders or files called as maps that fit no image.
    """
    if folders == "classes" or not any(
        f.role in (*_KINDS, "none") or _CALLED_AS_MAP.search(f.stem) for f in files
    ):
        return *_without_maps(files, name), {}
    by_folder = any(file.role in (None, "image") for file in files)  # else all lie in folders called as maps
    kinds = {file.number: _kind(file, by_folder) for file in files}
    images = [file for file in files if kinds[file.number] is None]
    if not images:
        return *_without_maps(files, name), {}
    maps: dict[str, Pairs] = {}
    notes, missing = list[str](), dict[str, str]()
    for kind in _KINDS:
        called = [file for file in files if kinds[file.number] == kind]
        if not called:
            continue
        found = _match(images, called)
        if not found:
            if by_folder and any(f.role == kind for f in called):
                raise DataError(_no_partner(kind, [f for f in called if f.role == kind], images, name))
            if len(called) > 1 and len(called) * _FEW >= len(files):
                raise DataError(_no_partner(kind, called, images, name))
            images += called
            continue
        notes_of, missing_of = _say_maps(kind, found, called)
        notes += notes_of
        if missing_of:
            missing[kind] = missing_of
        else:
            maps[kind] = {number: fitting[0].number for number, fitting in found.items()}
        paired = found.keys()
        if any(f.role == "image" for f in images if f.number in paired):
            notes += _left_out([f for f in images if f.role != "image"])
            images = [f for f in images if f.role == "image"]
    images.sort(key=lambda file: file.number)
    notes += _left_out([f for f in files if kinds[f.number] == "none"])
    if not maps and not missing:
        return *_without_maps(images, name), {}
    return images, maps, notes, missing


def _kind(file: _File, by_folder: bool) -> str | None:
    """Return the kind of map that a file is called as, `none` of pictures of maps; None of an image."""
    if by_folder and file.role in (*_KINDS, "none"):
        no_labels = file.role == "segmentation" and _NO_LABELS & set(_words(file.stem)[-2:])
        return "none" if no_labels else file.role
    return _kind_of_file(file.stem)


def _without_maps(images: list[_File], name: str) -> tuple[list[_File], dict[str, Pairs], list[str]]:
    """Return images of a set in which no folder holds maps: folders of images are then folders like others."""
    divided = any(file.split for file in images)  # those of no split are left out later
    inside = [f for f in images if f.role == "image" and _SURE_IMAGES & set(_words(f.of_role))]
    outside = sum(f.split is not None or not divided for f in images if f.role != "image")
    if inside and outside:
        chosen = {file.number for file in inside}
        others = [file for file in images if file.number not in chosen]
        if outside * _FEW > len(images):
            raise DataError(
                f"{name}: {inside[0].of_role} is called as a folder of images, and {_some(others)} lie beside it: "
                f"data.folders=classes makes each folder a class, =plain takes all images as one set; or name "
                f"{name}/{inside[0].of_role} itself"
            )
        return inside, {}, _left_out(others)
    if inside:
        return images, {}, []
    roles = {"image", *_KINDS, "none"}
    return [f._replace(folders=_unsplit(f)) if f.role in roles else f for f in images], {}, []


def _unsplit(file: _File) -> Parts:
    """Return the folders of a file but that of its split, those of its role among them."""
    parts = file.path.split("/")[:-1]
    if file.split in parts:
        parts.remove(file.split)
    return tuple(parts)


def _match(images: list[_File], called: list[_File]) -> dict[int, list[_File]]:
    """Return the maps of images by number, the best first: those of equal names, then by what names have in common."""
    levels = (
        lambda f: (f.split_group, f.folders, f.stem),
        lambda f: (f.split_group, f.folders, *f.key),
        lambda f: (f.folders, *f.key),
        lambda f: f.key,  # in folders of other names; JPEG maps could be classes
    )
    found: dict[int, list[_File]] = defaultdict(list)
    waiting = called
    for level in levels:
        by_key: dict[object, list[int]] = defaultdict(list)
        for file in images:
            by_key[level(file)].append(file.number)
        left = []
        for file in sorted(
            waiting, key=lambda f: (PurePosixPath(f.path).suffix.lower() in _LOSSY, len(f.stem))
        ):
            at = by_key.get(level(file), [])
            if level is levels[-1] and file.path.lower().endswith(_LOSSY):
                at = []
            if len(at) == 1 or (at and level is levels[0]):
                for number in at:
                    found[number].append(file)
            else:
                left.append(file)
        waiting = left
    return found


def _say_maps(kind: str, found: Mapping[int, list[_File]], called: list[_File]) -> tuple[list[str], str]:
    """Return notes on maps that are not used, and why none of them is, where that is so."""
    fitting = [file for maps in found.values() for file in maps]
    used = {file.number for file in fitting}
    places = sorted({file.of_role for file in fitting})
    notes = []
    if unused := [file for file in called if file.number not in used and file.of_role in places]:
        notes.append(f"{_some(unused)} belong to no image")
    where = " and ".join(places) if all(places) else "files beside the images"
    roots = {place.rstrip("/").split("/")[-1] for place in places}
    if kind == "segmentation" and len({_read_folder(root).rest for root in roots}) > 1:
        why = f"label maps lie in {where}; name one: data.segmentation_folder={sorted(roots)[0]}"
        return [*notes, why], why
    if kind == "segmentation" and any(f.path.lower().endswith(_LOSSY) for f in fitting):
        why = (
            f"the label maps of {where} are JPEG files, which blur labels, and are left out: save them as PNG"
        )
        return [*notes, why], why
    return notes, ""


def _no_partner(kind: str, called: list[_File], images: list[_File], name: str) -> str:
    maps = "label maps" if kind == "segmentation" else "depth maps"
    return (
        f"{name}: {called[0].of_role or 'it'} holds {count_of(len(called), 'file')} called as {maps} ({_first(called)})"
        f" that cannot be paired with the images ({_first(images)}): give both the same names, in PNG, or move one of "
        "them away; data.folders=classes makes each folder a class, =plain takes all as images"
    )


def _refuse_twins(images: list[_File], name: str) -> None:
    """Raise DataError where half of the images or more lie beside another of their name: pictures twice, or maps."""
    suffixes: dict[str, set[str]] = defaultdict(set)
    for file in images:
        base, _, suffix = file.path.rpartition(".")
        suffixes[base].add(suffix.lower())
    twice = [base for base, found in suffixes.items() if len(found) > 1 and found & {"png", "bmp", "gif"}]
    if len(twice) > 1 and 2 * len(twice) >= len(suffixes):
        files = " and ".join(f"{twice[0]}.{suffix}" for suffix in sorted(suffixes[twice[0]]))
        raise DataError(
            f"{name}: {files} may be a picture twice or a picture and its label map: move the maps to a folder "
            "masks/ beside one called images/, or data.folders=plain takes all as images"
        )


# Classes.


def _find_classes(
    images: list[_File], chosen: str | None
) -> tuple[dict[int, str], tuple[str, ...] | None, list[_File], str]:
    """Return the class of images by number, names over all splits, a few images beside, and why there are none."""
    by_split: dict[str | None, list[_File]] = defaultdict(list)
    for file in images:
        by_split[file.split].append(file)
    found = {split: _classes_of(files) for split, files in by_split.items()}
    names = {
        name for classes, *_ in found.values() if len(set(classes.values())) > 1 for name in classes.values()
    }
    labelled, beside, why = found.get(chosen, ({}, [], ""))
    if not labelled or not names.issuperset(labelled.values()) or not names:
        return {}, None, [], why
    return labelled, tuple(sort_names(names)), beside, ""


def _classes_of(files: list[_File]) -> tuple[dict[int, str], list[_File], str]:
    """Return the classes of a split's images, a few images beside their folders, and why there are no classes."""
    depth, _ = Counter(len(file.folders) for file in files).most_common(1)[0]
    inside = [file for file in files if len(file.folders) == depth]
    beside = [file for file in files if len(file.folders) != depth]
    if depth == 0:
        return {}, [], f"{_some(inside)} lie in no folder of a class" if beside else ""
    folders = {file.folders for file in inside}
    if len({folder[:-1] for folder in folders}) > 1:
        return {}, [], "folders lie in folders"
    if beside and (len(beside) * _FEW > len(files) or any(len(f.folders) > depth for f in beside)):
        return {}, [], f"{_some(beside)} lie beside the folders of classes"
    if _are_numbered_parts(inside):
        return {}, [], "folders hold a thousand files each, in the order of their numbers"
    return {file.number: file.folders[-1] for file in inside}, beside, ""


def _are_numbered_parts(files: list[_File]) -> bool:
    """Say whether folders only divide numbered files: 01000/01234.png (FFHQ), 00001/img00001234.png (StyleGAN)."""
    for file in files:
        number = re.fullmatch(r"\D*(\d{5,})", file.stem)
        folder = file.folders[-1]
        if (
            not number
            or not folder.isdecimal()
            or int(number[1]) // 1000 not in (int(folder), int(folder) / 1000)
        ):
            return False
    return True


# Words for the user.


def _first(files: Sequence[_File]) -> str:
    names = [file.path.rpartition("/")[2] for file in files[:2]]
    return ", ".join([*names, "..."] if len(files) > 2 else names)


def _some(files: Sequence[_File]) -> str:
    """Return how many files there are and where: `12 images in extra/`, `1 image (preview.png)`."""
    folders = sorted({f.of_role or (f.path.partition("/")[0] + "/" if "/" in f.path else "") for f in files})
    if len(files) == 1 or "" in folders:
        return f"{count_of(len(files))} ({_first(files)})"
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return f"{count_of(len(files))} in {', '.join(folders[:3])}{more}"


def _left_out(files: Sequence[_File]) -> list[str]:
    return [f"{_some(files)} left out"] if files else []
