"""Names of data sets turned into sources of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gtool.errors import DataError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class SceneSource:
    """The built-in scenes."""

    name: str
    seed: int
    resolution: int
    count: int
    kind: str = "scenes"
    note: str | None = None

    @property
    def fingerprint(self) -> str:
        return f"scenes-1-{self.seed}-{self.resolution}-{self.count}"

    def __len__(self) -> int:
        return self.count

    def draw(self, indices: np.ndarray) -> np.ndarray:
        from gtool.data.scenes import draw_scenes

        return draw_scenes(indices, self.resolution, self.seed).images

    def read(self, index: int) -> np.ndarray:
        import numpy as np

        return self.draw(np.array([index]))[0].transpose(1, 2, 0)

    def label(self, index: int) -> int | None:
        return None


def open_source(
    dataset: str,
    *,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    segmentation_column: str | None = None,
    num_images: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
    offline: bool = False,
) -> SceneSource:
    """Open a data set by name."""
    if dataset != "scenes":
        raise DataError(f"data set `{dataset}` is not known yet")
    from gtool.device import derive_seed

    drawn_from = seed if split == "train" else derive_seed(seed, split)
    return SceneSource(
        "scenes", drawn_from, resolution or 256, num_images or (20_000 if split == "train" else 2_000)
    )
