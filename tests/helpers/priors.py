"""Small priors for tests, whose parameters are none of them zero."""

from __future__ import annotations

import torch

from gtool.models.prior.config import PriorConfig, SamplingParams
from gtool.models.prior.network import Prior
from gtool.models.prior.sampling import UNKNOWN, sample_codes, uniform_numbers

SMALL = {"layers": 2, "heads": 2, "width": 16, "codebook_size": 11, "grid": (3, 4)}


def make(**changes) -> Prior:
    """Return a prior over a grid of 3 x 4 codes of 11."""
    torch.manual_seed(0)
    prior = Prior(PriorConfig(**SMALL | changes)).eval()
    with torch.no_grad():
        for parameter in prior.parameters():  # zeros at the start would hide mistakes
            parameter.add_(0.2 * torch.randn_like(parameter))
    return prior.requires_grad_(False)


def inputs(prior: Prior, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return conditions and codes of some images."""
    config = prior.config
    generator = torch.Generator().manual_seed(1)
    condition = torch.randint(config.condition_size, (count, config.condition_ids), generator=generator)
    codes = torch.randint(config.codebook_size, (count, *config.grid), generator=generator)
    return condition, codes


def sample(
    prior,
    condition,
    seed,
    indices,
    params: SamplingParams | None = None,
    *,
    known=None,
    size=(3, 4),
    **options,
) -> torch.Tensor:
    """Sample codes of images by their numbers; `known` has UNKNOWN where codes are wanted, None for all."""
    codes = torch.full((len(indices), *size), UNKNOWN) if known is None else known
    uniform = uniform_numbers(seed, indices, tuple(codes.shape[1:]))
    options = {"batch_size": 4} | options
    return sample_codes(prior, condition, codes, uniform, params or SamplingParams(), **options)
