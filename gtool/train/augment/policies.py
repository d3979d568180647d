"""Names of the augmentations and their one number each; imports no torch, as reading a recipe must not.

A policy is a comma-separated list of words, applied from left to right: `translation,cutout,color`. A word may carry
its number in [0, 1] after a colon: `translation:0.125,cutout:1` are those of Differentiable Augmentation (Zhao et al.
2020), the plain words are those of the TransGAN release, those with `ada` the pipeline of StyleGAN2-ADA (Karras et al.
2020). With the number 0 every operation leaves the images as they are.

Left out: `geo`, `crop`, `rotate` and `cutmix` of the release, which no released recipe uses.
"""

from gtool.errors import did_you_mean

# Name: what its number means, and the number where none is given.
OPERATIONS: dict[str, tuple[str, float]] = {
    "color": ("strength; 1 is brightness ±0.5, saturation 0 to 2, contrast 0.5 to 1.5", 1.0),
    "translation": ("largest shift as a share of the side", 0.2),
    "cutout": ("probability that the whole batch loses a square of half the side", 0.3),
    "erase_ratio": ("probability that the whole batch loses sides of 20 to 70 %", 0.3),
    "stl_erase_ratio": ("probability that the whole batch loses sides of 20 pixels to half + 20", 0.3),
    "hue": ("probability, per image, of a rotation about the grey axis", 0.5),
    "filter": ("probability, per image, with which each of four bands changes", 0.25),
    "ada-blit": ("probability, each, of flips, quarter turns, shifts by whole pixels", 1.0),
    "ada-geometric": ("probability, each, of scaling, rotation, stretching, shifts", 1.0),
    "ada-color": ("probability, each, of brightness, contrast, inverted luma, hue, saturation", 1.0),
    "ada": ("probability of each change of ada-blit, ada-geometric and ada-color", 1.0),
}


def parse_policy(text: str) -> tuple[str, ...]:
    """Split a policy into its words; empty or `none` is no augmentation.

    Raises:
        ValueError: an unknown operation, or a number that is not one or out of range.
    """
    if text.strip().lower() in ("", "none"):
        return ()
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        parse_word(word)
    return words


def parse_word(word: str) -> tuple[str, float]:
    """Return the operation of a word and its number; raises ValueError as `parse_policy` does."""
    name, colon, number = word.partition(":")
    if name not in OPERATIONS:
        raise ValueError(f"unknown augmentation `{name}`{did_you_mean(name, list(OPERATIONS))}")
    meaning, default = OPERATIONS[name]
    if not colon:
        return name, default
    try:
        amount = float(number)
    except ValueError:
        raise ValueError(f"augmentation `{word}`: `{number}` is no number") from None
    if not 0 <= amount <= 1:
        raise ValueError(f"augmentation `{word}`: a number in [0, 1] expected ({meaning})")
    return name, amount
