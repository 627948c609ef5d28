"""The registered estimators: names without imports, classes on demand.

Another installed package registers its own by an entry point of the group `fedage.estimators`:
`my-estimator = "my_package.my_module:MyEstimator"`. Which are installed is each side's own business: a site computes
with the code that its administrator installed, and refuses a campaign whose estimator it does not have.

Importing this package loads no estimator and no torch, so that a coordinator's command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from fedage.common.errors import FedAgeError

if TYPE_CHECKING:
    from fedage.common.estimators.base import Estimator, Options

ENTRY_POINTS = "fedage.estimators"
_REGISTERED = {
    "age-ensemble": ("fedage.common.estimators.age_ensemble", "AgeEnsemble"),
    "brain-clinical2d": ("fedage.common.estimators.brain_clinical2d", "BrainClinical2D"),
    "brain-contrastive": ("fedage.common.estimators.brain_contrastive", "BrainContrastive"),
    "brain-patches": ("fedage.common.estimators.brain_patches", "BrainPatches"),
    "brain-outcome": ("fedage.common.estimators.brain_outcome", "BrainOutcome"),
    "brain-sfcn": ("fedage.common.estimators.brain_sfcn", "BrainSFCN"),
    "brain-tsan": ("fedage.common.estimators.brain_tsan", "BrainTSAN"),
    "breast-4view": ("fedage.common.estimators.breast_4view", "Breast4View"),
    "breast-outcome": ("fedage.common.estimators.breast_outcome", "BreastOutcome"),
    "chest-ca": ("fedage.common.estimators.chest_ca", "ChestCA"),
    "cortex-vnn": ("fedage.common.estimators.cortex_vnn", "CortexVNN"),
    "table-mlp": ("fedage.common.estimators.table_mlp", "TableMLP"),
    "table-ridge": ("fedage.common.estimators.table_ridge", "TableRidge"),
}


class UnknownEstimator(ValueError):
    """A campaign file names an estimator that is not registered."""


class EstimatorRefused(FedAgeError):
    """An installed package registers an estimator that cannot be used; the message says which and why."""


def names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted({*_REGISTERED, *_installed()}))


def estimator_class(name: str) -> type[Estimator]:
    """The class registered as `name`; imports its one file.

    Raises
    ------
    UnknownEstimator
        With the names there are.
    EstimatorRefused
        If another package registers this name, and cannot be imported, calls itself otherwise, takes a name that is
        taken, or lacks what an estimator has.
    """
    if name in _REGISTERED:
        module, attribute = _REGISTERED[name]
        return cast("type[Estimator]", getattr(import_module(module), attribute))
    points = _installed().get(name)
    if points is None:
        raise UnknownEstimator(f"estimator {name!r} is not registered; allowed are {', '.join(names())}")
    return _loaded(name, points)


def make(name: str, options: Mapping[str, Any]) -> Estimator:
    """The estimator `name`, configured by the table `[estimator.options]`.

    Raises
    ------
    UnknownEstimator, EstimatorRefused
        As `estimator_class`.
    pydantic.ValidationError
        If options are unknown, of the wrong type or out of range: all of them at once.
    """
    chosen = estimator_class(name)
    construct = cast("Callable[[Options], Estimator]", chosen)
    return construct(chosen.Options.model_validate(dict(options)))


@cache
def _installed() -> dict[str, tuple[EntryPoint, ...]]:
    """Entry points of other packages by name; one with a name of ours is not looked at."""
    points: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name not in _REGISTERED:
            points[point.name] = (*points.get(point.name, ()), point)
    return points


def _loaded(name: str, points: tuple[EntryPoint, ...]) -> type[Estimator]:
    values = sorted({point.value for point in points})
    if len(values) > 1:
        raise EstimatorRefused(
            f"estimator {name!r} is registered by several installed packages ({', '.join(values)}); uninstall all but "
            "one"
        )
    try:
        chosen = points[0].load()
    except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises when it is imported
        raise EstimatorRefused(
            f"estimator {name!r} cannot be imported from {values[0]} ({type(error).__name__}: {error}); mend or "
            "uninstall the package"
        ) from None
    needed = ("name", "title", "Options", "inputs", "trained_in_rounds", "phases", "shapes", "predictor")
    if missing := [attribute for attribute in needed if not hasattr(chosen, attribute)]:
        raise EstimatorRefused(
            f"estimator {name!r} of {values[0]} has no {', '.join(missing)}; see common/estimators/base.py"
        )
    if chosen.name != name:
        raise EstimatorRefused(
            f"estimator {name!r} of {values[0]} calls itself {chosen.name!r}; give both the same name"
        )
    return cast("type[Estimator]", chosen)
