"""Layouts of public data sets: where their tables are, which column is what, how a row finds its image. One file each.

A recipe states where its column names come from. None of them has been run on the data set itself: each is tested on a
small tree made for the test, with the data set's column names.
"""

from __future__ import annotations

from importlib import import_module

from fedage.client.cohort.recipes._base import Recipe

NAMES = ("rsna-pneumonia", "rsna-mammography", "vindr", "embed", "cmmd", "openbhb")
__all__ = ["NAMES", "Recipe", "recipe"]


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises
    ------
    KeyError
        If there is none.
    """
    if name not in NAMES:
        raise KeyError(name)
    loaded: Recipe = import_module(f"{__name__}.{name.replace('-', '_')}").RECIPE
    return loaded
