"""Which analyses there are: the files of the folders here, and those that installed packages bring."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points

from fedage.common import analyses
from fedage.common.analyses.definition import Definition
from fedage.common.errors import FedAgeError

GROUP = "fedage.analyses"
"""Entry points of this group are analyses of other packages, under their names."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class AnalysisUnusable(FedAgeError):
    """An analysis of an installed package cannot be used; the message names it and the mend."""


@cache
def own() -> dict[str, Definition]:
    """FedAge's own analyses, by name, each after those that it builds on."""
    found = {}
    for module in pkgutil.walk_packages(analyses.__path__, f"{analyses.__name__}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            definition = getattr(importlib.import_module(module.name), "ANALYSIS", None)
            if isinstance(definition, Definition):
                found[definition.name] = definition
    return {definition.name: definition for definition in in_order(found.values())}


def names() -> list[str]:
    """The analyses that a file can ask for by a table of their own, installed packages' ones among them."""
    return sorted({name for name, found in own().items() if found.options is not None} | set(_points()))


def definition_of(name: str) -> Definition | None:
    """An analysis by its name; None if there is no such one here.

    A package's code is loaded only here, so only where a campaign file or a record names its analysis.

    Raises
    ------
    AnalysisUnusable
        If an installed package has it and it cannot be loaded, or is not one.
    """
    found = own().get(name)
    return found if found is not None or name not in _points() else _load(name)


def in_order(definitions: Iterable[Definition]) -> list[Definition]:
    """Definitions by place and name, each after those that it builds on.

    Raises
    ------
    AnalysisUnusable
        If some build on each other in a circle.
    """
    left = sorted(definitions, key=lambda each: (each.place, each.name))
    there = {each.name for each in left}
    done: dict[str, Definition] = {}
    while left:
        ready = next((each for each in left if all(n in done or n not in there for n in each.builds_on)), None)
        if ready is None:
            circle = ", ".join(each.name for each in left)
            raise AnalysisUnusable(f"the analyses {circle} build on each other in a circle; one has to come first")
        left.remove(ready)
        done[ready.name] = ready
    return list(done.values())


def _points() -> dict[str, str]:
    """Entry points of installed packages, name to what is loaded."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


@cache
def _load(name: str) -> Definition:
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    whose = " and ".join(point.dist.name for point in points if point.dist is not None) or "an installed package"
    if len(points) > 1:
        raise AnalysisUnusable(f"the packages {whose} each bring an analysis {name!r}; uninstall all but one")
    if not _NAME.fullmatch(name):
        raise AnalysisUnusable(f"analysis {name!r} of {whose}: a name has 1 to 63 lower-case letters, digits, hyphens")
    try:
        found = points[0].load()
    except (ImportError, AttributeError) as error:
        raise AnalysisUnusable(f"analysis {name!r} of {whose} cannot be loaded: {error}; install it again") from error
    if not isinstance(found, Definition) or found.name != name or found.options is None:
        raise AnalysisUnusable(
            f"analysis {name!r} of {whose}: {points[0].value} is no Definition of that name with options; an analysis "
            "of another package is asked for by a table of its own in the campaign file"
        )
    return found
