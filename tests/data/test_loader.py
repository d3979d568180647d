"""Order is a function of seed and position: epochs, resume, shares, flips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.data.loader import Batches
from gtool.data.open import open_dataset
from gtool.data.pixel_cache import ImageArrays, load_images
from gtool.errors import DataError
from gtool.nn.ranges import to_pm1, to_uint8
from tests.helpers import odd_images as odd


def numbered(count=10):
    """Images of 2x2 whose left column is the index and whose right column is 100 more."""
    images = np.zeros((count, 3, 2, 2), np.uint8)
    images[..., 0] = np.arange(count, dtype=np.uint8)[:, None, None]
    images[..., 1] = images[..., 0] + 100
    return ImageArrays(images, None, "numbered")


def make(flip=False, seed=0, **share):
    return Batches(numbered(), seed=seed, flip=flip, **share)


def shown(batch):
    return batch[:, 0, 0].min(dim=1).values.tolist()


def is_flipped(batch):
    return (batch[:, 0, 0, 0] > batch[:, 0, 0, 1]).tolist()


def test_batches_are_uint8_tensors_of_the_set():
    batch = make().next(4)
    assert batch.dtype == torch.uint8
    assert batch.shape == (4, 3, 2, 2)


def test_every_epoch_shows_every_image_once_in_another_order():
    batches = make()
    epochs = [shown(batches.next(10)) for _ in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_run_on_across_the_end_of_an_epoch():
    one, other = make(), make()
    stream = [image for _ in range(3) for image in shown(one.next(10))]
    assert [image for _ in range(5) for image in shown(other.next(6))] == stream


def test_batch_larger_than_the_set_is_served():
    stream = shown(make().next(30))
    assert [sorted(stream[k : k + 10]) for k in (0, 10, 20)] == [list(range(10))] * 3


def test_position_is_the_whole_resume_state():
    through, resumed = make(flip=True, seed=5), make(flip=True, seed=5)
    for _ in range(7):
        through.next(8)
    resumed.position = through.position
    assert through.position == 56
    for _ in range(5):
        assert torch.equal(resumed.next(8), through.next(8))


def test_position_can_go_back():
    batches = make(flip=True)
    first = batches.next(8)
    batches.next(24)
    batches.position = 0
    assert torch.equal(batches.next(8), first)


@pytest.mark.parametrize("world_size", [2, 4])
def test_shares_of_all_processes_make_the_batch_of_one(world_size):
    whole = make(flip=True)
    ranks = [make(flip=True, rank=rank, world_size=world_size) for rank in range(world_size)]
    for _ in range(4):
        assert torch.equal(torch.cat([rank.next(8) for rank in ranks]), whole.next(8))
    assert {rank.position for rank in ranks} == {whole.position}


def test_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(DataError, match="9 cannot be shared by 2 processes"):
        make(rank=0, world_size=2).next(9)


def test_order_is_another_for_another_seed():
    assert shown(make(seed=1).next(10)) != shown(make(seed=2).next(10))


def test_flips_do_not_depend_on_the_batch_size():
    one, other = make(flip=True), make(flip=True)
    assert torch.equal(
        torch.cat([one.next(4) for _ in range(6)]), torch.cat([other.next(12) for _ in range(2)])
    )


def test_about_half_of_the_images_are_flipped_and_anew_every_epoch():
    batches = make(flip=True)
    epochs = [is_flipped(batches.next(10)) for _ in range(100)]
    assert 0.45 < np.mean(epochs) < 0.55
    assert len({tuple(epoch) for epoch in epochs}) > 90


def test_nothing_is_flipped_unless_asked():
    assert not any(is_flipped(make(flip=False).next(100)))


def test_served_images_can_be_changed_without_harm():
    batches = make()
    first = batches.next(10).clone()
    batches.position = 0
    batches.next(10).zero_()
    batches.position = 0
    assert torch.equal(batches.next(10), first)


def test_images_on_access_are_served_in_the_same_order(tmp_path):
    source = open_dataset(str(odd.folder(tmp_path / "set", 7)))
    stored, lazy = (Batches(load_images(source, 4, budget_gb=b), seed=3, flip=True) for b in (1.0, 0.0))
    for _ in range(6):
        assert torch.equal(stored.next(4), lazy.next(4))


def test_wrong_rank_is_refused():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        make(rank=2, world_size=2)


def test_to_pm1_covers_minus_one_to_one():
    assert to_pm1(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_every_level_survives_the_way_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_pm1(levels)), levels)


def test_to_uint8_clamps_and_rounds():
    values = torch.tensor([-7.0, -1.0, 0.0, 0.0079, 1.0, 9.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 129, 255, 255]


def test_to_pm1_refuses_floats():
    with pytest.raises(TypeError, match="uint8"):
        to_pm1(torch.zeros(2))
