"""Which split is meant when a set calls it otherwise or has only one."""

from __future__ import annotations

from collections.abc import Iterable

from gtool.errors import DataError

_SAME = (
    frozenset(("train", "training")),
    frozenset(("validation", "valid", "val", "dev")),
    frozenset(("test", "testing")),
)
SPLIT_NAMES = frozenset().union(*_SAME)


def choose_split(available: Iterable[str], wanted: str, name: str) -> tuple[str, str | None]:
    """Return the split to use and a note when it is not called as wanted.

    Args:
        available: what the set has.
        wanted: what was asked for.
        name: of the set, for the note.

    Raises:
        DataError: several splits, and none of them is the one wanted.
    """
    splits = sorted(available)
    lower = {split.lower(): split for split in splits}
    for group in ({wanted.lower()}, *(same for same in _SAME if wanted.lower() in same)):
        for found in sorted(group & lower.keys()):
            return lower[found], None
    if len(splits) == 1:
        return splits[0], f"{name}: no split `{wanted}`; its only one, `{splits[0]}`, is used"
    raise DataError(f"{name}: no split `{wanted}`; it has {', '.join(splits)}")
