"""`trial-twice`: the views' network trained in two phases, the second of which goes on where the first has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from fedage.common.estimators.base import Arrays, Phase
from fedage_trial.views import FourViews, ViewsPhase


@dataclass(frozen=True)
class SecondPhase(ViewsPhase):
    """Begins with the model that the first phase has made."""

    name: str = "second"

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        return dict(before)


class Twice(FourViews):
    """See the module's docstring."""

    name: ClassVar[str] = "trial-twice"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (ViewsPhase(), SecondPhase())
