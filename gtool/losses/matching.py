"""Which given stroke is which proposal: the matching of Paint Transformer's training (Liu et al. 2021, section 3.3).

Axis letters: N patches, S proposals, G given strokes.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gtool.losses.strokes import parameter_distance, wasserstein


@torch.no_grad()
def match(
    proposed: Tensor, logits: Tensor, given: Tensor, valid: Tensor, *, wasserstein_weight: float = 2.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Pair every valid given stroke with a proposal of its patch so that the total cost is least.

    proposed: (N, S, 5), with logits (N, S). given: (N, G, 5) with G <= S, of which those of `valid` (N, G) count.
    wasserstein_weight: of the Wasserstein distance beside L1, the angle and 1 - probability.

    Returns patch, proposal and given stroke of every pair, (pairs,) each.
    """
    a, b = proposed[:, :, None], given[:, None]  # (N, S, G) below
    sides, angles = parameter_distance(a, b)
    cost = sides + angles + wasserstein_weight * wasserstein(a, b) + 1 - logits.sigmoid()[..., None]
    # One copy for the batch: the solver runs on the host.
    costs, valids = cost.float().cpu().numpy(), valid.cpu().numpy()
    patches, proposals, strokes = [], [], []
    for patch, (table, keep) in enumerate(zip(costs, valids, strict=True)):
        columns = np.flatnonzero(keep)
        rows, found = linear_sum_assignment(table[:, columns])
        patches.append(np.full(len(rows), patch))
        proposals.append(rows)
        strokes.append(columns[found])
    pairs = (np.concatenate(part).astype(np.int64) for part in (patches, proposals, strokes))
    one, two, three = (torch.from_numpy(part).to(proposed.device) for part in pairs)
    return one, two, three
