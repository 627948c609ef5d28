"""Training with privacy for each patient (DP-SGD; Abadi et al. 2016, arXiv 1607.00133): arrays in, arrays out.

A step: each patient joins with probability q (Poisson sampling), the gradient of each one's loss is clipped to the L2
norm C over all parameters together, the clipped gradients are summed, noise of standard deviation σC is added to the
sum, and the sum is divided by the *expected* number of patients qN: by how many have joined would tell how many. What
the optimiser does with it is post-processing.

The unit is the patient: the rows of one patient are one sample, whose loss is their mean. Augmentation draws
independently for every row, from a secret: who else is in a step changes nothing that a patient's gradient depends on.

Shape legend: N patients, R rows (exams) of samples, P parameters.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedage.client.compute.corrections import Proximal
from fedage.client.compute.patient_gradients import ClippedGradients
from fedage.client.compute.training import (
    TrainedUpdate,
    TrainingDiverged,
    TrainingStopped,
    check_data,
    optimiser_of,
)
from fedage.common.campaign.learning_rate import learning_rate
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Arrays, RoundsPhase, Samples
from fedage.common.estimators.predict import batch_of
from fedage.common.networks.arrays import network_of, state_to_arrays
from fedage.common.networks.batch_norm import has_batch_norm
from fedage.common.networks.devices import computing, placed, resolve_device
from fedage.common.privacy.accountant import Mechanism
from fedage.common.privacy.noise import SecretRandom, key_for, noised


class BatchNormRefused(ValueError):
    """The network normalises by the batch, which couples patients."""


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """How a training is made private.

    Parameters
    ----------
    mechanism
        q, σ and the steps of a round.
    clip_norm
        C, L2 norm of one patient's gradient.
    key
        32 bytes that nobody else knows, for this request alone: sampling, noise and augmentation follow from it.
    patients
        Whose each row is, (R,), numbers from 0 to N − 1; None if every row is a patient of its own.
    """

    mechanism: Mechanism
    clip_norm: float
    key: bytes
    patients: NDArray[np.intp] | None = None


def train_privately(
    phase: RoundsPhase,
    weights: Arrays,
    samples: Samples,
    targets: Mapping[str, NDArray[np.float64]],
    *,
    training: Training,
    private: PrivateTraining,
    round_number: int,
    threads: int,
    device: str = "auto",
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedUpdate:
    """Train from `weights` for the mechanism's steps. The same key and inputs give the same bits on a CPU.

    No loss is told, nor anything else that follows from the patients and has no noise.

    Parameters
    ----------
    phase, weights, samples, targets, training, round_number, threads, device, should_stop
        As `train_locally`, of R rows.
    private
        How.

    Raises
    ------
    BatchNormRefused, ModelRefused, TrainingDiverged, TrainingStopped
    """
    started = time.perf_counter()
    check_data(samples, targets)
    where, mechanism = resolve_device(device), private.mechanism
    random = SecretRandom(private.key)
    rows_of = _rows_of(private.patients, len(samples))
    with computing(where, threads=threads), torch.random.fork_rng(devices=_devices(where)):
        torch.manual_seed(random.seed(0))  # of what a network draws itself, such as dropout
        module = placed(network_of(lambda: phase.build(seed=0), weights), where).train()
        require_no_batch_norm(module)
        learnt = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
        optimiser = optimiser_of(module, training, learning_rate(training, round_number=round_number))
        gradients = ClippedGradients(phase, module, clip_norm=private.clip_norm, where=where)
        pull = Proximal.of(module, training)
        generator = torch.Generator().manual_seed(random.seed(1))
        expected = mechanism.sampling_rate * len(rows_of)
        for step in range(mechanism.steps):
            joined = np.flatnonzero(random.uniform(len(rows_of)) < mechanism.sampling_rate)
            total = gradients.zeros()
            for rows, patients in _parts(rows_of, joined, most_rows=gradients.most_rows):
                if should_stop():
                    raise TrainingStopped(f"training was stopped in round {round_number}")
                batch = batch_of(samples.at(rows), where, targets={name: one[rows] for name, one in targets.items()})
                gradients.add(total, phase.training_batch(batch, generator=generator), patients)
            sums = {name: one.cpu().numpy() for name, one in total.items()}
            noise = _noise_of(private.key, step, sums)
            for name, parameter in learnt.items():
                made = noised(sums[name], sd=mechanism.noise_multiplier * private.clip_norm, random=noise)
                parameter.grad = torch.from_numpy((made / expected).astype(np.float32)).to(parameter)
            if pull is not None:
                pull.add_gradient()  # of the model alone, so that it needs no noise
            optimiser.step()
        trained = state_to_arrays(module)
    if not all(np.isfinite(array).all() for array in trained.values()):
        # Of noised sums alone, so that to be told of it tells nothing else.
        raise TrainingDiverged(
            f"weights are not finite after round {round_number}; lower training.learning_rate="
            f"{training.learning_rate:g}"
        )
    return TrainedUpdate(weights=trained, n=len(rows_of), mean_loss=None, seconds=time.perf_counter() - started)


def require_no_batch_norm(module: nn.Module) -> None:
    """Raise `BatchNormRefused` if the network normalises by the batch."""
    if has_batch_norm(module):
        raise BatchNormRefused(
            "the network has batch normalisation, which mixes the patients of a batch, so that no patient's gradient "
            'can be clipped alone; use group normalisation (estimator.options.norm = "group" where there is one)'
        )


def _noise_of(key: bytes, step: int, sums: Mapping[str, NDArray[np.float64]]) -> SecretRandom:
    """The noise of a step's sums: of other sums it is another one, whatever made them differ.

    Attack: two answers to one request, between which an image was replaced, subtracted under the same noise are what
    the patient's gradient changed by. Rule: noise follows from the sums too, and such an answer is charged again.
    """
    digest = hashlib.sha256()
    for name in sorted(sums):
        digest.update(np.ascontiguousarray(sums[name]).data)
    return SecretRandom(key_for(key, "noise", str(step), digest.hexdigest()))


def _rows_of(patients: NDArray[np.intp] | None, rows: int) -> list[NDArray[np.intp]]:
    """The rows of each patient."""
    if patients is None:
        return list(np.arange(rows)[:, None])
    order = np.argsort(patients, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)


def _parts(
    rows_of: list[NDArray[np.intp]], joined: NDArray[np.intp], *, most_rows: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The rows of those who joined, so many at a time, whole patients together; and whose of these each row is."""
    part: list[NDArray[np.intp]] = []
    for patient in joined:
        rows = rows_of[patient]
        if part and sum(map(len, part)) + len(rows) > most_rows:
            yield _part(part)
            part = []
        part.append(rows)
    if part:
        yield _part(part)


def _part(part: list[NDArray[np.intp]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.concatenate(part), np.repeat(np.arange(len(part)), [len(rows) for rows in part])


def _devices(where: torch.device) -> list[torch.device]:
    return [where] if where.type == "cuda" else []
