"""Local training and prediction: arrays in, arrays out, no transport and no files.

Shape legend: N patients, (C, H, W) a sample, B a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Trainable
from fedage.common.networks.arrays import ModelRefused, Weights, network_of, state_to_arrays

__all__ = [
    "ModelRefused",
    "PredictionStopped",
    "TooFewSamples",
    "TrainedUpdate",
    "TrainingDiverged",
    "TrainingStopped",
    "learning_rate",
    "predict_years",
    "train_locally",
]


class TooFewSamples(ValueError):
    """Not even one batch can be made of a site's training patients."""


class TrainingDiverged(RuntimeError):
    """The loss or a weight stopped being a number."""


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
        Mean over all patients and epochs of the round, on the estimator's own scale.
    seconds
        Wall time.
    """

    weights: Weights
    n: int
    mean_loss: float
    seconds: float


def learning_rate(training: Training, *, round_number: int) -> float:
    """The rate of a round, 1 … `rounds`: a cosine from `learning_rate` down to its final fraction."""
    if training.rounds == 1:
        return training.learning_rate
    done = min(max(round_number - 1, 0) / (training.rounds - 1), 1.0)
    final = training.final_learning_rate_fraction
    return training.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))


def train_locally(
    estimator: Trainable,
    weights: Mapping[str, NDArray[np.float32]],
    samples: NDArray[np.float32],
    ages_years: NDArray[np.float64],
    *,
    training: Training,
    round_number: int,
    rng_seed: int,
    threads: int,
    device: str = "auto",
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedUpdate:
    """Train from `weights` for one round's local epochs.

    On the CPU the same inputs and the same number of threads give the same bits.

    Parameters
    ----------
    estimator
        Network, loss and augmentation.
    weights
        The round's model.
    samples
        (N, C, H, W) float32, preprocessed; may be memory-mapped.
    ages_years
        (N,).
    training
        The campaign's table.
    round_number
        From 1.
    rng_seed
        Drives shuffling and augmentation; the caller derives it from the campaign's seed, site and round.
    threads
        Of torch, while training.
    device
        "auto" (a GPU if there is one), "cpu" or "cuda".
    should_stop
        Asked before every batch.

    Raises
    ------
    ModelRefused, TooFewSamples, TrainingDiverged, TrainingStopped
    """
    started = time.perf_counter()
    _check_data(samples, ages_years)
    where = resolve_device(device)
    mend = f"lower training.learning_rate={training.learning_rate:g}"
    with _compute(where, threads=threads):
        module = _place(network_of(lambda: estimator.build(seed=0), weights), where).train()
        optimiser = _optimiser(module, training, learning_rate(training, round_number=round_number))
        generator = torch.Generator().manual_seed(rng_seed)
        smallest = 2 if _has_batch_norm(module) else 1
        loss_sum, seen = 0.0, 0
        for _ in range(training.local_epochs):
            for rows in _batches(len(samples), training.batch_size, smallest=smallest, generator=generator):
                if should_stop():
                    raise TrainingStopped(f"training was stopped in round {round_number}")
                loss = _step(estimator, module, optimiser, samples[rows], ages_years[rows], where, generator)
                if not math.isfinite(loss):
                    raise TrainingDiverged(f"loss is {loss} in round {round_number}; {mend}")
                loss_sum += loss * len(rows)
                seen += len(rows)
    if seen == 0:
        raise TooFewSamples(f"{len(samples)} training patients make no batch; at least {smallest} are needed")
    trained = state_to_arrays(module)
    if not all(np.isfinite(array).all() for array in trained.values()):
        raise TrainingDiverged(f"weights are not finite after round {round_number}; {mend}")
    return TrainedUpdate(
        weights=trained, n=len(samples), mean_loss=loss_sum / seen, seconds=time.perf_counter() - started
    )


def predict_years(
    estimator: Trainable,
    weights: Mapping[str, NDArray[np.float32]],
    samples: NDArray[np.float32],
    *,
    batch_size: int = 64,
    device: str = "auto",
    threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> NDArray[np.float64]:
    """Predicted ages (N,) in years of samples (N, C, H, W), in order, without augmentation.

    Raises
    ------
    ModelRefused
        If the weights are not the network's.
    PredictionStopped
        If `should_stop`, asked before every batch, says so.
    """
    where = resolve_device(device)
    ages = np.empty(len(samples))
    with _compute(where, threads=threads), torch.inference_mode():
        module = _place(network_of(lambda: estimator.build(seed=0), weights), where).eval()
        for start in range(0, len(samples), batch_size):
            if should_stop():
                raise PredictionStopped(f"prediction was stopped after {start} of {len(samples)} patients")
            rows = slice(start, start + batch_size)
            with _autocast(where):
                output = module(_to_device(samples[rows], where))
            ages[rows] = estimator.age_years(output.float()).cpu().numpy()
    return ages


def resolve_device(device: str) -> torch.device:
    """A GPU if there is one for "auto"; anything else is torch's own name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def device_in_words(device: str, *, trains: bool) -> str:
    """What a campaign is computed on here, for the coordinator: the device that "auto" is, and a GPU's model.

    Only training in rounds and its predictions use a GPU; sums over tables are computed on the CPU.
    """
    if not trains:
        return "cpu"
    where = resolve_device(device)
    if where.type != "cuda":
        return str(where)
    if not torch.cuda.is_available():
        return f"{where}, but torch finds no GPU here"
    return f"{where} ({torch.cuda.get_device_name(where)})"[:80]


def _step(
    estimator: Trainable,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: NDArray[np.float32],
    ages_years: NDArray[np.float64],
    where: torch.device,
    generator: torch.Generator,
) -> float:
    """One batch: augment, loss, gradient, step. Returns the loss before the step."""
    batch = estimator.augment(_to_device(samples, where), generator=generator)
    target = torch.from_numpy(ages_years.astype(np.float32)).to(where)
    optimiser.zero_grad(set_to_none=True)
    with _autocast(where):
        output = module(batch)
    loss = estimator.loss(output.float(), target)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def _check_data(samples: NDArray[np.float32], ages_years: NDArray[np.float64]) -> None:
    if ages_years.shape != samples.shape[:1]:
        raise ValueError(f"{samples.shape[0]} samples need as many ages, not an array of shape {ages_years.shape}")
    if not np.isfinite(ages_years).all():
        raise ValueError("some training ages are not finite; leave those patients out")


def _batches(count: int, batch_size: int, *, smallest: int, generator: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of each batch of one shuffled epoch; a last batch below `smallest` is dropped."""
    order = torch.randperm(count, generator=generator).numpy()
    for start in range(0, count, batch_size):
        rows = order[start : start + batch_size]
        if len(rows) >= smallest:
            yield rows


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())


def _optimiser(module: nn.Module, training: Training, rate: float) -> torch.optim.Optimizer:
    parameters = list(module.parameters())
    if training.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=training.weight_decay)
    chosen = torch.optim.AdamW if training.optimiser == "adamw" else torch.optim.Adam
    return chosen(parameters, lr=rate, weight_decay=training.weight_decay)


def _place(module: nn.Module, where: torch.device) -> nn.Module:
    if where.type != "cuda":
        return module.to(where)
    return module.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _to_device(samples: NDArray[np.float32], where: torch.device) -> torch.Tensor:
    # A copy, because a memory map may be read-only, which torch warns about.
    batch = torch.from_numpy(np.array(samples, dtype=np.float32))
    if where.type != "cuda":
        return batch.to(where)
    return batch.to(where, memory_format=torch.channels_last)


def _autocast(where: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(where.type, dtype=torch.bfloat16, enabled=where.type == "cuda")


@contextmanager
def _compute(where: torch.device, *, threads: int | None) -> Iterator[None]:
    """Torch's threads and cuDNN's determinism, put back afterwards: the process is an agent's and does other things."""
    before = torch.get_num_threads()
    with ExitStack() as stack:
        if where.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            yield
        finally:
            torch.set_num_threads(before)
