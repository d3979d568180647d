"""Numbers as colours: black for 0, over violet and red to nearly white."""

from __future__ import annotations

from typing import Any

import numpy as np

from gtool.io.picture import Pixels

# Brightness grows evenly, so that the order of values survives grey printing and colour blindness.
RAMP = np.array([(0, 0, 0), (72, 20, 116), (180, 40, 100), (244, 120, 40), (255, 208, 90), (255, 255, 235)])


def heat(values: Any, largest: float) -> Pixels:
    """Colour values (H, W), 0 to `largest`, as (3, H, W); all black where `largest` is 0."""
    share = np.clip(np.asarray(values, np.float64) / (largest or 1.0), 0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    return np.stack([np.rint(np.interp(share, stops, channel)) for channel in RAMP.T]).astype(np.uint8)
