"""What the image files of a folder or a zip are: splits, classes, maps beside images. Decided here alone, from names.

Nothing is opened, so every rule can be tested with a list of names. docs/data.md has a table of what is taken for what.

- Folders called as splits (`train/`, `test2017/`, `val_images/`, also `faces_train/` beside `faces_test/`) are splits,
  at any depth. Beside two splits all else is left out; beside a single one it could be classes, and is refused.
- Folders and files called as maps (`masks/`, `gtFine/`, `7_mask.png`) are maps where names pair them with images: equal
  ones, or equal without the words of maps and images. Where none does, they are refused.
- Where the images lie one folder deep, in two folders or more, that folder is the class; a few beside are left out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from gtool.data import folder_names
from gtool.data.folder_names import KINDS, Parts, read_folder
from gtool.errors import DataError

Folders = Literal["auto", "splits", "classes", "plain"]

_FEW = 10  # one in so many may lie beside folders, and is left out


def choose_split(available: Iterable[str], split: str, name: str) -> tuple[str, str | None]:
    """Return what a set calls the split that was asked for, and a note where its only one is taken instead.

    DataError, by the set's name, where there are several splits, and none or several of them are the one asked for.
    """
    splits = sorted(available)
    exact = [split] if split in splits else [found for found in splits if found.lower() == split.lower()]
    group = folder_names.SPLIT_OF.get(split.lower())
    alike = [found for found in splits if group and read_folder(found).split == group]
    plain = [found for found in alike if found.lower() in folder_names.SPLIT_OF]
    found = exact or (plain if len(plain) == 1 else alike)  # `train` before `train_extra`
    if len(found) > 1:
        raise DataError(
            f"{name}: several splits may be `{split}`: {', '.join(found)}; name one: data.split={found[0]}"
        )
    if found:
        return found[0], None
    if len(splits) == 1:
        return splits[0], f"no split `{split}`; its only one, `{splits[0]}`, is used"
    raise DataError(f"{name}: no split `{split}`; it has {', '.join(splits)}")


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
    maps: Mapping[str, list[int | None]] = field(default_factory=dict)  # by kind: of each image, None without
    split: str | None = None
    other_splits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


class _File(NamedTuple):
    """An image file of the list, and what its path says of it."""

    number: int
    path: str
    split: str | None  # the folder of its split
    role: str | None
    of_role: str  # the folders to the one of its role, with a slash; empty without
    folders: Parts  # without those of split and role
    stem: str


def read_layout(
    names: Sequence[str],
    split: str,
    name: str,
    *,
    folders: Folders = "auto",
    segmentation_folder: str | None = None,
    twins: bool = True,
) -> FolderContents:
    """Decide what the image files of a folder or zip, called `name` in messages, are.

    names: of the files, with slashes, relative to the folder or zip.
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
        notes += filter(None, [note])
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
            of_split = split is None and folder_names.is_split(folder, below[parts[:depth]])
            if of_split:
                split = folder
            says = (
                folder_names.role_among(folder, below[parts[:depth]]) if depth >= shared or of_split else None
            )
            if segmentation:
                says = "none" if says == "segmentation" else says
                says = "segmentation" if folder == segmentation else says
            if folders == "classes":
                says = None
            if says and (role is None or (is_open and says == role)):
                role, is_open = says, True
                of_role = "/".join(parts[: depth + 1]) + "/"
            elif not of_split:
                rest.append(folder)
                is_open = False
        return split, role, of_role, tuple(rest)

    found = []
    for number, (path, parts) in enumerate(zip(names, parts_of, strict=True)):
        stem = parts[-1].rpartition(".")[0] or parts[-1]
        found.append(_File(number, path, *read(parts[:-1]), stem))
    return found


def _divide(images: list[_File], folders: Folders, name: str) -> tuple[list[_File], list[_File], set[str]]:
    """Return the images of all splits, those of none that are left out, and the splits."""
    splits = {file.split for file in images if file.split is not None}
    others = [file for file in images if file.split is None]
    if not splits or not others or folders == "splits" or len({read_folder(s).split for s in splits}) > 1:
        return [file for file in images if not splits or file.split], others if splits else [], splits
    if folders == "classes":
        whole = (file._replace(split=None) for file in images)
        return [file._replace(folders=_below_split(file)) for file in whole], [], set()
    if not any(file.folders for file in others) and len(others) * _FEW <= len(images):
        return [file for file in images if file.split], others, splits
    raise DataError(
        f"{name}: `{min(splits)}` is called as a split, and {_some(others)} lie beside it: "
        "data.folders=splits leaves them out, =classes makes each folder a class, =plain takes all images as one set"
    )


def _pair(
    files: list[_File], name: str, folders: Folders
) -> tuple[list[_File], dict[str, dict[int, int]], list[str], dict[str, str]]:
    """Return images, maps by kind, notes on what was left out, and why there are no maps of a kind.

    DataError for folders or files called as maps that fit no image.
    """
    if folders == "classes" or not any(
        f.role in (*KINDS, "none") or folder_names.CALLED_AS_MAP.search(f.stem) for f in files
    ):
        return *_without_maps(files, name), {}
    by_folder = any(file.role in (None, "image") for file in files)  # else all lie in folders called as maps
    kinds = {file.number: _kind(file, by_folder) for file in files}
    images = [file for file in files if kinds[file.number] is None]
    if not images:
        return *_without_maps(files, name), {}
    maps: dict[str, dict[int, int]] = {}
    notes, missing = list[str](), dict[str, str]()
    for kind in KINDS:
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
    if by_folder and file.role in (*KINDS, "none"):
        return "none" if file.role == "segmentation" and folder_names.no_labels(file.stem) else file.role
    return folder_names.kind_of_file(file.stem)


def _without_maps(images: list[_File], name: str) -> tuple[list[_File], dict[str, dict[int, int]], list[str]]:
    """Return images of a set in which no folder holds maps: folders of images are then folders like others."""
    divided = any(file.split for file in images)  # those of no split are left out later
    inside = [
        f
        for f in images
        if f.role == "image" and folder_names.SURE_IMAGES & set(folder_names.words_of(f.of_role))
    ]
    outside = sum(f.split is not None or not divided for f in images if f.role != "image")
    if inside and outside:
        others = [file for file in images if file not in set(inside)]
        if outside * _FEW > len(images):
            raise DataError(
                f"{name}: {inside[0].of_role} is called as a folder of images, and {_some(others)} lie beside it: "
                f"data.folders=classes makes each folder a class, =plain takes all images as one set; or name "
                f"{name}/{inside[0].of_role} itself"
            )
        return inside, {}, _left_out(others)
    if not inside:
        images = [f if f.role is None else f._replace(folders=_below_split(f)) for f in images]
    return images, {}, []


def _below_split(file: _File) -> Parts:
    return tuple(part for part in file.path.split("/")[:-1] if part != file.split)


def _match(images: list[_File], called: list[_File]) -> dict[int, list[_File]]:
    """Return the maps of images by number, the best first: those of equal names, then by what names have in common."""

    def group_of(file: _File) -> str | None:
        return None if file.split is None else read_folder(file.split).split

    levels: tuple[Callable[[_File], object], ...] = (
        lambda f: (group_of(f), f.folders, f.stem),
        lambda f: (group_of(f), f.folders, *folder_names.key_of(f.stem)),
        lambda f: (f.folders, *folder_names.key_of(f.stem)),
        lambda f: folder_names.key_of(f.stem, splits=False),  # in other folders; JPEG maps could be classes
    )
    found: dict[int, list[_File]] = defaultdict(list)
    waiting = sorted(called, key=lambda file: (_is_lossy(file), len(file.stem)))
    for level in levels:
        by_key: dict[object, list[int]] = defaultdict(list)
        for file in images:
            by_key[level(file)].append(file.number)
        left = []
        for file in waiting:
            at = by_key.get(level(file), [])
            if (len(at) == 1 or level is levels[0]) and at and not (level is levels[-1] and _is_lossy(file)):
                for number in at:
                    found[number].append(file)
            else:
                left.append(file)
        waiting = left
    return found


def _is_lossy(file: _File) -> bool:
    return file.path.lower().endswith((".jpg", ".jpeg", ".jfif", ".webp"))


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
    if kind == "segmentation" and len({read_folder(root).rest for root in roots}) > 1:
        why = f"label maps lie in {where}; name one: data.segmentation_folder={sorted(roots)[0]}"
        return [*notes, why], why
    if kind == "segmentation" and any(map(_is_lossy, fitting)):
        why = (
            f"the label maps of {where} are JPEG files, which blur labels, and are left out: save them as PNG"
        )
        return [*notes, why], why
    return notes, ""


def _no_partner(kind: str, called: list[_File], images: list[_File], name: str) -> str:
    maps = "label maps" if kind == "segmentation" else "depth maps"
    advice = f" that cannot be paired with the images ({_first(images)}): give both the same names, in PNG, or move one"
    if folder_names.are_parts([file.stem for file in called]):
        advice = (
            ", several for an image: an image has one, so merge them into a PNG of its name, 0 where none is"
        )
    return (
        f"{name}: {called[0].of_role or 'it'} holds {count_of(len(called), 'file')} called as {maps} ({_first(called)})"
        f"{advice}; data.folders=classes makes each folder a class, =plain takes all as images"
    )


def _refuse_twins(images: list[_File], name: str) -> None:
    """Raise DataError where half of the images or more lie beside another of their name: pictures twice, or maps."""
    if len({file.path.rpartition(".")[0] for file in images}) == len(images):
        return
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
    return labelled, tuple(folder_names.sort_names(names)), beside, ""


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

    def is_one(file: _File) -> bool:
        number, folder = re.fullmatch(r"\D*(\d{5,})", file.stem), file.folders[-1]
        if not number or not folder.isdecimal():
            return False
        return int(number[1]) // 1000 in (int(folder), int(folder) / 1000)

    return all(map(is_one, files))


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
