"""What the words in the names of folders and files say: splits, images, maps."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

Parts = tuple[str, ...]

SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("pred", "predict"), "pred"),
}
KINDS = ("segmentation", "depth")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SURE_IMAGES = _set("images image imgs img")  # others can be classes: photo, sketch
_ROLES = {  # of folders, by their words; the first that fits
    "depth": _set("depth depths"),
    "segmentation": _set(
        "masks mask segmentations segmentation segm seg semantic labels label maps map annotations"
    )
    | _set("annotation annot anno gt truths truth trimaps trimap matte"),
    "image": SURE_IMAGES | _set("photos photo pictures picture rgb color input inputs"),
}
# With a word of maps: pictures of maps, or of objects one by one; no labels of pixels.
_NO_LABELS = _set(
    "color colors colour colours rgb object objects parts instance instances panoptic overlay overlays"
)
_FILLER = _set(
    "set data dataset left bit fine coarse class jpeg png ground full raw ids stuff thing pixel sat im"
)
_NOT = _set("with without no non not")
_IN_KEYS = _FILLER.union(*_ROLES.values())  # words that a picture and its map need not have in common
_KNOWN = _IN_KEYS.union(_NO_LABELS, SPLIT_OF)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TOKENS = re.compile(rf"\d+|{_WORDS.pattern}|[^\W\d_a-zA-Z]+")
_MANUAL = re.compile(r"(?i)\b\d(st|nd)_manual\b|(?<![a-z])manual\d\b")  # drawn by hand, in sets of retinas
CALLED_AS_MAP = re.compile("mask|seg|label|gt|truth|anno|matte|trimap|depth", re.IGNORECASE)


class FolderName(NamedTuple):
    """What the name of a folder says."""

    split: str | None  # train, validation, test, pred
    role: str | None  # image, segmentation, depth; `none` of pictures of maps
    rest: Parts  # its words without that of the split
    is_sure: bool  # all words are known


@cache
def words_of(name: str) -> Parts:
    """Return the words of a name in lower case; those of known words (`trainannot`) taken apart."""
    name = _MANUAL.sub("annotation", name)
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
def read_folder(name: str) -> FolderName:
    words = words_of(name)
    splits = [SPLIT_OF[word] for word in words if word in SPLIT_OF]
    is_sure = all(word in _KNOWN for word in words)
    role = next((role for role, known in _ROLES.items() if known & set(words)), None)
    if _NOT & set(words):  # with_mask, no_mask: what a picture shows
        role = None
    if role == "segmentation" and _NO_LABELS & set(words):
        role = "none"
    split = splits[0] if len(splits) == 1 else None
    return FolderName(split, role, tuple(word for word in words if word not in SPLIT_OF), is_sure)


def key_of(stem: str, *, splits: bool = True) -> tuple[str, ...]:
    """Return the words and numbers of a file's name without those of images and maps, and of splits where not asked."""
    stem = _MANUAL.sub("annotation", stem.replace("leftImg8bit", ""))
    tokens = [token.lower() for token in _TOKENS.findall(stem)]
    return tuple(
        part
        for token in tokens
        for part in (words_of(token) or (token,))
        if part not in _IN_KEYS and (splits or part not in SPLIT_OF)
    )


def are_parts(stems: Sequence[str]) -> bool:
    """Say whether names are those of parts of pictures, as 7_hair and 7_nose: half of them or less before the words."""
    keys = map(key_of, stems)
    before = {key[: max((n for n, part in enumerate(key, 1) if part.isdecimal()), default=0)] for key in keys}
    return 2 * len(before) <= len(stems) and () not in before


def no_labels(stem: str) -> bool:
    """Say whether a file called as a map is a picture of one: `_color`, `_instanceIds`."""
    return bool(_NO_LABELS & set(words_of(stem)[-2:]))


def kind_of_file(stem: str) -> str | None:
    """Return the kind of map that a file is called as, by its first or last word; `none` of a picture of a map."""
    if not CALLED_AS_MAP.search(stem):
        return None
    words = tuple(word for word in words_of(stem) if word not in ("ids", "parts"))
    if not words or _NOT & set(words[-2:]):
        return None
    if _NO_LABELS & {words[-1]}:
        return "none" if _ROLES["segmentation"] & set(words) else None
    ends = {words[0], words[-1]}
    return next((kind for kind in KINDS if ends & _ROLES[kind]), None)


def is_split(folder: str, siblings: set[str]) -> bool:
    """Say whether a folder is called as a split, alone or by comparison: `a_train` beside `a_test`."""
    own = read_folder(folder)
    if own.split is None or own.is_sure:
        return own.split is not None
    others = map(read_folder, siblings)
    return any(other.rest == own.rest and other.split not in (None, own.split) for other in others)


def role_among(folder: str, siblings: set[str]) -> str | None:
    """Return the role of a folder: by its name, or by comparison, as of `faces-mask` beside `faces-img`."""
    own = read_folder(folder)
    if any(set(words_of(folder)) == set(words_of(other)) - _NOT for other in siblings - {folder}):
        return None  # mask beside no_mask
    if own.is_sure or not own.role:
        return own.role
    roles = {read_folder(sibling).role for sibling in siblings}
    fitting = roles.intersection(KINDS) if own.role == "image" else "image" in roles
    return own.role if fitting else None


def sort_names(names: Iterable[str]) -> list[str]:
    """Return names of classes without repetition, sorted as text, or by value where all are numbers."""
    unique = sorted(set(names))
    return sorted(unique, key=int) if all(name.isdecimal() for name in unique) else unique
