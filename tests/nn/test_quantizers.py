"""Quantizers: known answers, straight-through gradients, counts and restarts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gtool.nn import quantizers
from gtool.nn.quantizers import Codebook, CosineCodebook, count_codes, nearest


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(entries: list[list[float]], **options: bool | float) -> Codebook:
    quantizer = Codebook(len(entries), len(entries[0]), **options)
    quantizer.weight.data.copy_(torch.tensor(entries))
    return quantizer


def vectors(*rows: list[float]) -> Tensor:
    """Return vectors as the grid (1, d, 1, w) of an image."""
    return torch.tensor(rows).t()[None, :, None].clone()


def test_the_code_is_the_number_of_the_nearest_entry():
    quantizer = table([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    z = vectors([0.1, 0.2], [0.9, -0.1], [0.2, 1.1], [5.0, 0.0])
    out = quantizer(z)
    assert out.codes.tolist() == [[[0, 1, 2, 1]]]
    torch.testing.assert_close(out.vectors, vectors([0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0]))
    assert torch.equal(quantizer.embedding()[out.codes].movedim(-1, 1), out.vectors.detach())


@pytest.mark.parametrize("legacy", [False, True])
def test_beta_is_the_weight_of_the_commitment_and_of_the_entries_in_the_released_form(legacy):
    """One vector at distance (0.5, 1): both terms are 0.625, and their gradients tell them apart."""
    quantizer = table([[0.0, 0.0], [9.0, 9.0]], beta=0.25, legacy=legacy)
    z = vectors([0.5, 1.0]).requires_grad_()
    loss = quantizer(z).loss
    assert loss.item() == pytest.approx(1.25 * 0.625)
    loss.backward()
    committed, moved = (1.0, 0.25) if legacy else (0.25, 1.0)
    assert z.grad is not None
    assert z.grad.flatten().tolist() == pytest.approx([committed * 0.5, committed * 1.0])
    assert quantizer.weight.grad is not None
    assert quantizer.weight.grad[0].tolist() == pytest.approx([-moved * 0.5, -moved * 1.0])


@pytest.mark.parametrize("kind", [Codebook, CosineCodebook])
def test_the_gradient_goes_straight_through(kind):
    quantizer = kind(8, 4)
    z = torch.randn(2, 4, 3, 3, generator=generator(), requires_grad=True)
    prepared = z if kind is Codebook else torch.nn.functional.normalize(z, dim=1)
    slope = torch.randn(2, 4, 3, 3, generator=generator(1))
    (found,) = torch.autograd.grad((quantizer(z).vectors * slope).sum(), z)
    (expected,) = torch.autograd.grad((prepared * slope).sum(), z)
    torch.testing.assert_close(found, expected)


def test_a_new_codebook_lies_where_the_released_one_does():
    weight = Codebook(64, 16).weight
    assert weight.abs().max() <= 1 / 64
    assert weight.std().item() == pytest.approx(1 / 64 / math.sqrt(3), rel=0.1)


def test_cosine_codes_know_no_length():
    quantizer = CosineCodebook(32, 4)
    z = torch.randn(2, 4, 5, 5, generator=generator())
    once, large = quantizer(z), quantizer(100 * z)
    assert torch.equal(once.codes, large.codes)
    torch.testing.assert_close(once.vectors.norm(dim=1), torch.ones(2, 5, 5))
    torch.testing.assert_close(quantizer.embedding().norm(dim=1), torch.ones(32))
    direction = torch.nn.functional.normalize(z, dim=1)
    angles = torch.einsum("ndhw,kd->nkhw", direction, quantizer.embedding())
    assert torch.equal(angles.argmax(dim=1), once.codes)


def test_distances_in_parts_are_those_of_the_whole(monkeypatch):
    z, entries = torch.randn(50, 4, generator=generator()), torch.randn(16, 4, generator=generator(1))
    whole = nearest(z, entries)
    assert torch.equal(whole, torch.cdist(z, entries).argmin(dim=1))
    monkeypatch.setattr(quantizers, "MOST_DISTANCES", 100)
    assert torch.equal(nearest(z, entries), whole)


# Dead entries.


def test_entries_that_were_not_seen_become_vectors():
    quantizer = Codebook(8, 2)
    before = quantizer.weight.detach().clone()
    z = torch.randn(2, 2, 4, 4, generator=generator())
    counts = count_codes(torch.tensor([[0, 3], [3, 5]]), 8)
    assert counts.tolist() == [1, 0, 0, 2, 0, 1, 0, 0]
    assert quantizer.restart(z, counts, generator()) == 5
    after = quantizer.weight.detach()
    seen = torch.tensor([0, 3, 5])
    assert torch.equal(after[seen], before[seen])
    rows = z.movedim(1, -1).reshape(-1, 2)
    dead = after[torch.tensor([1, 2, 4, 6, 7])]
    assert all((row == rows).all(dim=1).any() for row in dead)
    assert len(dead.unique(dim=0)) == 5


def test_with_nothing_counted_a_codebook_begins_at_its_data():
    quantizer = CosineCodebook(64, 4)
    z = torch.randn(4, 4, 6, 6, generator=generator())
    assert quantizer.restart(z, torch.zeros(64), generator()) == 64
    assert len(quantizer(z).codes.unique()) == 64


def test_more_dead_entries_than_vectors_take_some_twice():
    quantizer = Codebook(10, 2)
    z = torch.randn(1, 2, 1, 4, generator=generator())
    assert quantizer.restart(z, torch.zeros(10), generator()) == 10
    assert len(quantizer.weight.unique(dim=0)) == 4


def test_restarts_keep_a_codebook_in_use_where_it_dies_without():
    """Vectors in a corner that only one entry is near: without restarts, that one is all that is ever used."""
    z = 3 + torch.randn(4, 4, 8, 8, generator=generator())
    used = {}
    for restarts in (False, True):
        torch.manual_seed(0)
        quantizer = Codebook(32, 4)
        optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
        for step in range(20):
            out = quantizer(z)
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            if restarts and step % 5 == 4:
                quantizer.restart(z, count_codes(out.codes, 32), generator(step))
        used[restarts] = len(quantizer(z).codes.unique())
    assert used[False] < 8
    assert used[True] > 24


def test_counts_of_shares_are_counts_of_the_whole():
    """What two processes have to do to be one: gather codes and vectors in the order of the batch."""
    z = torch.randn(4, 4, 3, 3, generator=generator())
    weights = []
    for shares in (1, 2):
        torch.manual_seed(0)
        quantizer = Codebook(16, 4)
        codes = torch.cat([quantizer(share).codes for share in z.chunk(shares)])
        quantizer.restart(z, count_codes(codes, 16), generator(7))
        weights.append(quantizer.weight.detach().clone())
    assert torch.equal(*weights)


def test_counts_are_no_weights():
    assert list(Codebook(8, 2).state_dict()) == ["weight"]
