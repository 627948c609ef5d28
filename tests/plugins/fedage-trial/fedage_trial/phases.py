"""What the phases of this package share: seeded weights, an age on a scale, a ridge regression after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fedage.common.estimators.base import PREDICTED_YEARS, Arrays, Batch, Predictor
from fedage.common.estimators.ridge import ridge_arrays
from fedage.common.networks.arrays import state_to_arrays

if TYPE_CHECKING:
    import torch

CENTRE_YEARS, SCALE_YEARS = 60.0, 10.0
_RIDGE = "ridge."


class SeededPhase:
    """A network whose weights begin as the seed says."""

    couples_samples: bool = False
    smallest_batch: int = 1

    def network(self) -> torch.nn.Module:
        raise NotImplementedError

    def build(self, *, seed: int) -> torch.nn.Module:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.network()

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        return dict(state_to_arrays(self.build(seed=seed)))

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        return batch


class AgePhase(SeededPhase):
    """A network of which one output is the age."""

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        raise NotImplementedError

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        from torch.nn import functional

        return functional.mse_loss(output, (batch.targets["age_years"] - CENTRE_YEARS) / SCALE_YEARS)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        return self.named(arrays, PREDICTED_YEARS, device=device)

    def named(self, arrays: Arrays, column: str, *, device: str) -> Predictor:
        """The network's age under this name."""
        from fedage.common.estimators.predict import network_predictor

        return network_predictor(
            lambda: self.build(seed=0),
            arrays,
            output=self.output,
            columns=lambda output: {column: CENTRE_YEARS + SCALE_YEARS * output},
            device=device,
        )


def with_ridge(result: Mapping[str, Any], before: Arrays, _seed: int) -> dict[str, NDArray[Any]]:
    """A network's arrays and those of the ridge regression after it."""
    return {**before, **{_RIDGE + name: array for name, array in ridge_arrays(result).items()}}


def ridge_and_network(arrays: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The two taken apart."""
    ridge = {name.removeprefix(_RIDGE): array for name, array in arrays.items() if name.startswith(_RIDGE)}
    return ridge, {name: array for name, array in arrays.items() if not name.startswith(_RIDGE)}
