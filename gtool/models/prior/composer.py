"""A prior with the tokenizer whose codes it predicts: what makes pictures, and what a weights file of a prior holds."""

from __future__ import annotations

from torch import nn

from gtool.models.prior.composer_config import ComposerConfig
from gtool.models.prior.network import Prior
from gtool.models.vqgan.network import make_tokenizer

__all__ = ["Composer", "build"]


class Composer(nn.Module):
    """`prior`, `tokenizer` and, where maps are turned into codes, `condition_tokenizer`; no forward of its own."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        self.config = config
        self.prior = Prior(config.prior)
        self.tokenizer = make_tokenizer(config.tokenizer)
        own = config.condition_tokenizer
        self.condition_tokenizer = None if own is None else make_tokenizer(own)


def build(config: ComposerConfig) -> tuple[Composer]:
    """Build all networks from torch's current random stream: one, of two or three parts."""
    return (Composer(config),)
