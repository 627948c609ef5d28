"""What each array of a network is, for rules on how far a model may move in a round.

*Learnt* arrays are the parameters. *Running* ones are BatchNorm's means and variances, which no optimiser moves and
whose size has nothing to do with a learning rate. *Fixed* ones are all other buffers, such as the standardisation of a
table's features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

_MEAN, _VARIANCE, _COUNTER = "running_mean", "running_var", "num_batches_tracked"


@dataclass(frozen=True)
class ArrayRoles:
    """Names of a network's arrays by what they are.

    Parameters
    ----------
    learnt
        Parameters.
    running
        Pairs of a running mean and its variance.
    fixed
        All other buffers, and what stays at the sites.
    local
        Of the fixed ones those that each site has its own of (FedBN).
    """

    learnt: tuple[str, ...]
    running: tuple[tuple[str, str], ...] = ()
    fixed: tuple[str, ...] = ()
    local: tuple[str, ...] = ()

    @property
    def moving(self) -> tuple[str, ...]:
        """The arrays that training changes."""
        return (*self.learnt, *(name for pair in self.running for name in pair))

    def to_json(self) -> str:
        """As text."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> ArrayRoles:
        """The inverse of `to_json`. Raises `ValueError` or `KeyError` for another text."""
        fields: dict[str, Any] = json.loads(text)
        running = tuple((str(mean), str(variance)) for mean, variance in fields["running"])
        return cls(
            learnt=tuple(fields["learnt"]),
            running=running,
            fixed=tuple(fields["fixed"]),
            local=tuple(fields.get("local", ())),
        )


def roles_of(module: nn.Module, *, norms_stay: Literal["all", "statistics"] | None = None) -> ArrayRoles:
    """The roles of a network's arrays, those that travel (`state_to_arrays`).

    Parameters
    ----------
    norms_stay
        What of batch normalisation stays at the sites and is fixed for all others: all of it (FedBN, Li et al. 2021),
        or its means and variances only (SiloBN, Andreux et al. 2020).
    """
    found = _roles(module)
    if norms_stay is None:
        return found
    from torch import nn

    prefixes = tuple(
        f"{name}." for name, layer in module.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    )
    running = tuple(name for pair in found.running for name in pair)
    staying = running if norms_stay == "statistics" else (*found.moving, *found.fixed)
    local = tuple(name for name in staying if name.rpartition(".")[0] + "." in prefixes)
    return ArrayRoles(
        learnt=tuple(name for name in found.learnt if name not in local),
        running=tuple(pair for pair in found.running if pair[0] not in local),
        fixed=tuple(dict.fromkeys((*found.fixed, *local))),
        local=local,
    )


def _roles(module: nn.Module) -> ArrayRoles:
    learnt = tuple(name for name, _ in module.named_parameters())
    buffers = [name for name, _ in module.named_buffers() if not name.endswith(_COUNTER)]
    variances = {name.removesuffix(_VARIANCE): name for name in buffers if name.endswith(_VARIANCE)}
    running = tuple(
        (name, variances[name.removesuffix(_MEAN)])
        for name in buffers
        if name.endswith(_MEAN) and name.removesuffix(_MEAN) in variances
    )
    paired = {name for pair in running for name in pair}
    return ArrayRoles(learnt=learnt, running=running, fixed=tuple(name for name in buffers if name not in paired))
