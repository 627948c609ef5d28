"""Local training and prediction: arrays in, arrays out, no transport and no files.

Shape legend: N patients, B a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedage.client.compute.corrections import ControlTerm, Proximal
from fedage.client.compute.optimiser_steps import BatchTooLarge, Steps
from fedage.client.compute.prefetch import BATCHES_AHEAD, announcing, reading_ahead
from fedage.common.campaign.learning_rate import learning_rate
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Arrays, Batch, Predictor, RoundsPhase, Samples
from fedage.common.estimators.predict import batch_of
from fedage.common.networks.arrays import ModelRefused, Weights, network_of, state_to_arrays
from fedage.common.networks.control_variates import ControlVariates
from fedage.common.networks.devices import (
    computing,
    gradient_scaler,
    layers_draw_from,
    layers_dtype,
    placed,
    resolve_device,
)
from fedage.common.protocol.messages import derived_seed

__all__ = [
    "BatchTooLarge",
    "ModelRefused",
    "PredictionStopped",
    "TooFewSamples",
    "TrainedUpdate",
    "TrainingDiverged",
    "TrainingStopped",
    "check_data",
    "optimiser_of",
    "predict_columns",
    "train_locally",
]


Chosen = TypeVar("Chosen", NDArray[np.int64], slice)
"""Rows of a batch."""
Made = TypeVar("Made")


class TooFewSamples(ValueError):
    """Not even one batch can be made of a site's training patients."""

    rule = "too-few-samples"


class TrainingDiverged(RuntimeError):
    """The loss or a weight stopped being a number."""

    rule = "training-diverged"


class TrainingStopped(RuntimeError):
    """`should_stop` said so; nothing of the round is kept."""


class PredictionStopped(RuntimeError):
    """`should_stop` said so; no prediction is kept."""


@dataclass(frozen=True)
class TrainedUpdate:
    """What local training gives back.

    Parameters
    ----------
    weights
        The trained model.
    n
        Patients trained on: the update's weight in the average.
    mean_loss
        Mean over all patients and epochs of the round, on the estimator's own scale; None if it is not told.
    seconds
        Wall time.
    parts
        Into how many parts a batch was cut to fit into memory; 1 if it fitted.
    steps
        Steps of the optimiser.
    """

    weights: Weights
    n: int
    mean_loss: float | None
    seconds: float
    parts: int = 1
    steps: int = 0


def train_locally(
    phase: RoundsPhase,
    weights: Arrays,
    samples: Samples,
    targets: Mapping[str, NDArray[np.float64]],
    *,
    training: Training,
    round_number: int,
    rng_seed: int,
    threads: int,
    device: str = "auto",
    order_seed: int | None = None,
    minimum_count: int = 1,
    control: ControlVariates | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedUpdate:
    """Train from `weights` for one round's local epochs.

    On the CPU the same inputs and the same number of threads give the same bits.

    Parameters
    ----------
    phase
        Network, loss and augmentation.
    weights
        The round's model.
    samples
        Of N patients, preprocessed; those on a disk are read batch by batch, the next ones while one is trained on.
    targets
        (N,) each, `age_years` among them; NaN where another one is not known.
    training
        The campaign's table.
    round_number
        Of the phase, from 1.
    rng_seed
        Drives augmentation and dropout, and the batches if there is no `order_seed`.
    order_seed
        Drives which patients make a batch, and the order of batches; see `_batches`.
    minimum_count
        Fewest patients of a batch.
    control
        Control variates, in the strategy that has them.
    threads
        Of torch, while training.
    device
        "auto" (a GPU if there is one), "cpu" or "cuda".
    should_stop
        Asked before every batch.

    Raises
    ------
    BatchTooLarge, ModelRefused, TooFewSamples, TrainingDiverged, TrainingStopped
    """
    started = time.perf_counter()
    check_data(samples, targets)
    where = resolve_device(device)
    mend = f"lower training.learning_rate={training.learning_rate:g}"
    with computing(where, threads=threads), layers_draw_from(derived_seed("layers", rng_seed), where):
        module = placed(network_of(lambda: phase.build(seed=0), weights), where).train()
        rate = learning_rate(training, round_number=round_number)
        optimiser = optimiser_of(module, training, rate)
        generator = torch.Generator().manual_seed(rng_seed)
        orders = torch.Generator().manual_seed(rng_seed if order_seed is None else order_seed)
        smallest = max(phase.smallest_batch, 2 if _has_batch_norm(module) else 1, minimum_count)
        count = training.local_epochs * _number_of_batches(len(samples), training.batch_size, smallest=smallest)
        pull: Proximal | ControlTerm | None = Proximal.of(module, training)
        if control is not None and count:
            pull = ControlTerm.of(module, control.correction(steps=count, rate=rate))
        dtype = layers_dtype(where, training.precision)
        steps = Steps(
            phase, module, optimiser, where, generator, pull, gradient_scaler(where, dtype), dtype, training.micro_batch
        )
        loss_sum, samples_seen = 0.0, 0

        def read(rows: NDArray[np.int64]) -> Batch:
            return batch_of(samples.at(rows), where, targets={name: column[rows] for name, column in targets.items()})

        for _ in range(training.local_epochs):
            epoch = _batches(len(samples), training.batch_size, smallest=smallest, generator=orders)
            with _batches_of(samples, epoch, read, where=where) as batches:
                for rows in epoch:
                    if should_stop():
                        raise TrainingStopped(f"training was stopped in round {round_number}")
                    loss = steps.step(next(batches))
                    if not math.isfinite(loss):
                        raise TrainingDiverged(f"loss is {loss} in round {round_number}; {mend}")
                    loss_sum += loss * len(rows)
                    samples_seen += len(rows)
    if samples_seen == 0:
        raise TooFewSamples(
            f"{len(samples)} training patients in batches of {training.batch_size} make no batch; "
            f"at least {smallest} are needed in one"
        )
    trained = state_to_arrays(module)
    if not all(np.isfinite(array).all() for array in trained.values()):
        raise TrainingDiverged(f"weights are not finite after round {round_number}; {mend}")
    return TrainedUpdate(
        weights=trained,
        n=len(samples),
        mean_loss=loss_sum / samples_seen,
        seconds=time.perf_counter() - started,
        parts=steps.parts,
        steps=count,
    )


def predict_columns(
    predictor: Predictor,
    samples: Samples,
    *,
    batch_size: int = 64,
    device: str = "auto",
    threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[np.float64]]:
    """Predicted columns (N,) of samples, in order, without augmentation.

    Raises
    ------
    PredictionStopped
        If `should_stop`, asked before every batch, says so.
    """
    made: dict[str, list[NDArray[np.float64]]] = {}
    where = resolve_device(device)
    some = [slice(start, start + batch_size) for start in range(0, len(samples), batch_size)]
    reading = _batches_of(samples, some, samples.at, where=where)
    with computing(where, threads=threads), reading as batches:
        for rows in some:
            if should_stop():
                raise PredictionStopped(f"prediction was stopped after {rows.start} of {len(samples)} patients")
            for name, column in predictor(next(batches)).items():
                made.setdefault(name, []).append(np.asarray(column, dtype=np.float64))
    return {name: np.concatenate(parts) for name, parts in made.items()}


def _batches_of(
    samples: Samples,
    batches: Sequence[Chosen],
    read: Callable[[Chosen], Made],
    *,
    where: torch.device,
) -> AbstractContextManager[Iterator[Made]]:
    """`read` of each batch's rows; what is on a disk is fetched ahead of the computation."""
    if samples.in_memory:
        return nullcontext(map(read, batches))
    if not _waits_for(where):
        return nullcontext(announcing(read, batches, announce=samples.will_read, ahead=BATCHES_AHEAD))

    def read_at_once(rows: Chosen) -> Made:
        samples.will_read(rows)
        return read(rows)

    return reading_ahead(read_at_once, batches, ahead=BATCHES_AHEAD)


def _waits_for(where: torch.device) -> bool:
    """Whether this process waits while a device computes."""
    return where.type != "cpu"


def check_data(samples: Samples, targets: Mapping[str, NDArray[np.float64]]) -> None:
    """Raise `ValueError` for targets that are not one for each sample, or ages that are not finite."""
    for name, column in targets.items():
        if column.shape != (len(samples),):
            raise ValueError(f"{len(samples)} samples need as many values of {name}, not an array of {column.shape}")
    if not np.isfinite(targets["age_years"]).all():
        raise ValueError("some training ages are not finite; leave those patients out")


def _batches(count: int, batch_size: int, *, smallest: int, generator: torch.Generator) -> list[NDArray[np.int64]]:
    """Rows of each batch of one shuffled epoch, at least `smallest`; a smaller last batch joins the one before.

    Attack: momentum and batches of unequal sizes give patients different weights in an update; weights that change
    from round to round, at one model, are as many linear equations for each patient's gradient, which is the record.
    After a step at a large rate the other batches of a round hardly count, so that a batch of one is that patient.
    Rule: the same batches in the same order in every round of a campaign, drawn by a site's own secret, and a batch has
    the minimum count of patients. Residual risk: each campaign file has batches of its own.
    """
    starts = _starts(count, batch_size, smallest=smallest)
    order = torch.randperm(count, generator=generator).numpy()
    batches = [order[start:end] for start, end in zip(starts, [*starts[1:], count], strict=True)]
    return [rows for rows in batches if len(rows) >= smallest]


def _starts(count: int, batch_size: int, *, smallest: int) -> list[int]:
    starts = list(range(0, count, max(batch_size, smallest)))
    if len(starts) > 1 and count - starts[-1] < smallest:
        starts.pop()
    return starts


def _number_of_batches(count: int, batch_size: int, *, smallest: int) -> int:
    """How many `_batches` makes."""
    return len(_starts(count, batch_size, smallest=smallest)) if count >= smallest else 0


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())


def optimiser_of(module: nn.Module, training: Training, rate: float) -> torch.optim.Optimizer:
    """The local optimiser that the campaign's table asks for, with this learning rate."""
    parameters = list(module.parameters())
    if training.optimiser == "sgd":
        # Control variates are mean gradients, which an update is K η times of without momentum only.
        momentum = 0.0 if training.strategy == "scaffold" else 0.9
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=training.weight_decay)
    chosen = torch.optim.AdamW if training.optimiser == "adamw" else torch.optim.Adam
    return chosen(parameters, lr=rate, weight_decay=training.weight_decay)
