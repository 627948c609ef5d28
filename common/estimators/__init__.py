"""The registered estimators: names without imports, classes on demand.

Importing this package loads no estimator and no torch, so that a coordinator's command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fedage.common.estimators.base import Estimator, Options

_REGISTERED = {
    "chest-ca": ("fedage.common.estimators.chest_ca", "ChestCA"),
    "table-mlp": ("fedage.common.estimators.table_mlp", "TableMLP"),
    "table-ridge": ("fedage.common.estimators.table_ridge", "TableRidge"),
}


class UnknownEstimator(ValueError):
    """A campaign file names an estimator that is not registered."""


def names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_REGISTERED))


def estimator_class(name: str) -> type[Estimator]:
    """The class registered as `name`; imports it, and with it torch.

    Raises
    ------
    UnknownEstimator
        With the names there are.
    """
    try:
        module, attribute = _REGISTERED[name]
    except KeyError:
        raise UnknownEstimator(f"estimator {name!r} is not registered; allowed are {', '.join(names())}") from None
    return cast("type[Estimator]", getattr(import_module(module), attribute))


def make(name: str, options: Mapping[str, Any]) -> Estimator:
    """The estimator `name`, configured by the table `[estimator.options]`.

    Raises
    ------
    UnknownEstimator
        If the name is not registered.
    pydantic.ValidationError
        If options are unknown, of the wrong type or out of range: all of them at once.
    """
    chosen = estimator_class(name)
    construct = cast("Callable[[Options], Estimator]", chosen)
    return construct(chosen.Options.model_validate(dict(options)))
