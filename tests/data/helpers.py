"""What the tests of data sets ask of one."""

from __future__ import annotations


def greys(dataset):
    """The grey level of the first pixel of each image."""
    return [int(dataset.read(index)[0, 0, 0]) for index in range(len(dataset))]


def names(dataset):
    return [dataset.name_of(index) for index in range(len(dataset))]
