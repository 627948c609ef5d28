"""Training and prediction read samples from the cache batch by batch: same figures, bounded memory, no thread left."""

import os
import resource
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from fedage.client.cohort.samples import rows
from fedage.client.cohort.samples.rows import RowFile
from fedage.client.compute import training
from fedage.client.compute.training import (
    PredictionStopped,
    TrainingDiverged,
    TrainingStopped,
    predict_columns,
    train_locally,
)
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Batch, Input, Samples
from fedage.common.estimators.predict import network_predictor
from fedage.common.networks.arrays import state_to_arrays
from fedage.common.preprocessing.image import Exam
from tests.client.cohort.dicoms import ramp, write
from tests.client.cohort.samples.test_samples import cache, cohort

SIDE, PATIENTS, BATCH = 1024, 64, 1
SET_BYTES = PATIENTS * SIDE * SIDE * 4
TABLE = Training(rounds=1, batch_size=3, local_epochs=2)


class Coarse:
    """A linear network on means of blocks; its training batches are noisy, and drawn from the round's generator."""

    name = "coarse"
    couples_samples = False
    smallest_batch = 1

    def __init__(self, *, side: int, block: int) -> None:
        self.side, self.block = side, block

    def build(self, *, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.AvgPool2d(self.block), nn.Flatten(), nn.Linear((self.side // self.block) ** 2, 1))

    def start(self, before: Any, *, seed: int) -> Any:
        del before
        return dict(state_to_arrays(self.build(seed=seed)))

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        noise = torch.randn(len(batch.inputs["image"]), 1, 1, 1, generator=generator)
        return Batch({"image": batch.inputs["image"].add_(0.1 * noise)}, batch.present, batch.targets)

    def output(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        return module(batch.inputs["image"])[:, 0]

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return ((output - batch.targets["age_years"] / 100) ** 2).mean()

    def predictor(self, arrays: Any, *, device: str) -> Any:
        return network_predictor(
            lambda: self.build(seed=0),
            arrays,
            output=self.output,
            columns=lambda made: {"predicted_years": made},
            device=device,
        )


class Large:
    """A test estimator: samples of 4 MiB, each of one value."""

    name: ClassVar[str] = "large"
    options = None
    inputs = (Input(name="image", rank=2),)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"image": (1, SIDE, SIDE)}

    def preprocess(self, exam: Exam) -> Mapping[str, Any]:
        return {"image": np.full((1, SIDE, SIDE), exam["image"].pixels[0, 0] / 1e3, dtype=np.float32)}


def stored(tmp_path: Path, *, count: int) -> tuple[Samples, Samples, dict[str, np.ndarray]]:
    """The same samples on disk and in memory, with ages."""
    rng = np.random.default_rng(4)
    array = rng.normal(size=(count, 1, 8, 8)).astype("<f4")
    np.save(tmp_path / "samples.npy", array)
    file = RowFile(tmp_path / "samples.npy", dtype=array.dtype, shape=array.shape)
    return Samples({"image": file}), Samples({"image": array}), {"age_years": rng.uniform(20, 90, count)}


def train(samples: Samples, targets: Mapping[str, Any], **options: Any) -> Any:
    phase = Coarse(side=8, block=2)
    settings = {"training": TABLE, "round_number": 1, "rng_seed": 3, "threads": 1, "device": "cpu", **options}
    return train_locally(phase, phase.start({}, seed=1), samples, targets, **settings)


def left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.fixture(params=["cpu", "gpu"])
def reading(request, monkeypatch) -> str:
    """As on the CPU, or in a thread as before a GPU."""
    monkeypatch.setattr(training, "_waits_for", lambda _: request.param == "gpu")
    return request.param


@pytest.mark.parametrize("count", [1, 3, 8, 31])
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_read_ahead_from_disk_the_figures_are_those_of_a_loop_in_memory(tmp_path, monkeypatch, reading, count, ahead):
    monkeypatch.setattr(training, "BATCHES_AHEAD", ahead)
    on_disk, in_memory, targets = stored(tmp_path, count=count)
    assert (on_disk.in_memory, in_memory.in_memory) == (False, True)
    streamed, plain = train(on_disk, targets), train(in_memory, targets)
    assert streamed.mean_loss == plain.mean_loss
    assert all(np.array_equal(streamed.weights[name], plain.weights[name]) for name in plain.weights)
    predictor = Coarse(side=8, block=2).predictor(plain.weights, device="cpu")
    some = np.arange(count)[::-1]
    for disk, memory in [(on_disk, in_memory), (on_disk.of(some), in_memory.of(some))]:
        columns = [predict_columns(predictor, one, batch_size=4, device="cpu") for one in (disk, memory)]
        assert np.array_equal(columns[0]["predicted_years"], columns[1]["predicted_years"])
    assert left() == []


def test_patients_who_lack_an_array_are_known_in_every_batch(tmp_path):
    on_disk, in_memory, targets = stored(tmp_path, count=7)
    present = {"image": np.array([True, False, True, True, False, True, False])}
    order = np.array([6, 0, 3, 4])
    for samples in (on_disk, in_memory):
        chosen = Samples(samples.arrays, present).of(order)
        assert chosen.at(np.array([1, 3])).present["image"].tolist() == [True, False]
        assert np.array_equal(chosen.at(np.array([1, 3]))["image"], in_memory["image"][[0, 4]])
    assert targets["age_years"].shape == (7,)


@pytest.mark.parametrize("chosen", [None, [6, 0, 3, 4], [5]])
def test_each_patient_is_announced_before_being_read(tmp_path, monkeypatch, reading, chosen):
    """What is announced, once, is what is read: every patient once an epoch, two batches ahead."""
    on_disk, _, targets = stored(tmp_path, count=7)
    said: list[tuple[str, list[int]]] = []
    real_read, real_announce = RowFile.__getitem__, RowFile.will_read

    def noted(word: str, rows: Any) -> None:
        said.append((word, np.arange(7)[rows].tolist()))

    def read(file: RowFile, rows: Any) -> Any:
        noted("read", rows)
        return real_read(file, rows)

    def announce(file: RowFile, rows: Any) -> None:
        noted("announced", rows)
        real_announce(file, rows)

    monkeypatch.setattr(RowFile, "__getitem__", read)
    monkeypatch.setattr(RowFile, "will_read", announce)
    rows = np.arange(7) if chosen is None else np.array(chosen)
    train(on_disk.of(rows), {name: column[rows] for name, column in targets.items()})
    read_of, announced_of = ([numbers for word, numbers in said if word == which] for which in ("read", "announced"))
    assert read_of == announced_of
    assert sorted(row for rows_read in read_of for row in rows_read) == sorted(2 * rows.tolist())
    if reading == "cpu" and len(read_of) > 4:
        assert [word for word, _ in said[:4]] == ["announced", "announced", "announced", "read"]


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_stopped_no_thread_is_left(tmp_path, reading, batches):
    on_disk, _, targets = stored(tmp_path, count=20)
    asked = iter(range(100))
    with pytest.raises(TrainingStopped):
        train(on_disk, targets, should_stop=lambda: next(asked) >= batches)
    assert next(asked) == batches + 1
    assert left() == []
    phase = Coarse(side=8, block=2)
    predictor, asked = phase.predictor(phase.start({}, seed=0), device="cpu"), iter(range(100))
    with pytest.raises(PredictionStopped, match=f"after {4 * batches} of 20"):
        predict_columns(predictor, on_disk, batch_size=4, should_stop=lambda: next(asked) >= batches)
    assert left() == []


def test_a_diverged_loss_leaves_no_thread(tmp_path, reading):
    on_disk, _, targets = stored(tmp_path, count=20)
    with pytest.raises(TrainingDiverged):
        train(on_disk, {"age_years": targets["age_years"] * 1e30})
    assert left() == []


def test_a_disk_that_fails_in_the_middle_fails_the_round(tmp_path, monkeypatch, reading):
    on_disk, _, targets = stored(tmp_path, count=20)
    real, calls = os.preadv, iter(range(100))

    def failing(*arguments: Any) -> int:
        if next(calls) == 9:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    monkeypatch.setattr(rows.os, "preadv", failing)
    with pytest.raises(OSError, match="Input/output error"):
        train(on_disk, targets)
    assert left() == []


def test_a_set_of_four_times_the_memory_that_is_left_trains(tmp_path):
    """The child may grow by a quarter of its training set; a map of the set, and the set in memory, are refused."""
    for number in range(PATIENTS):
        write(tmp_path / f"data/{number:03d}.dcm", f"p{number:03d}", pixels=ramp() + np.uint16(20 * number))
    made = cache(tmp_path).build(cohort(tmp_path), Large(), workers=1)  # type: ignore[arg-type]
    assert len(made.samples) == PATIENTS
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    script = f"""
        from pathlib import Path
        from tests.client.test_streaming import train_within_a_quarter
        train_within_a_quarter(Path({str(tmp_path)!r}))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "trained and predicted" in ended.stdout


def train_within_a_quarter(tmp_path: Path) -> None:
    """In a process of its own."""
    phase = Coarse(side=SIDE, block=64)
    options: dict[str, Any] = {
        "training": Training(rounds=1, batch_size=BATCH, learning_rate=1e-2),
        "round_number": 1,
        "rng_seed": 1,
        "threads": 1,
        "device": "cpu",
    }
    # What a first training allocates once is part of the process's own size.
    few = Samples({"image": np.zeros((BATCH, 1, SIDE, SIDE), dtype=np.float32)})
    train_locally(phase, phase.start({}, seed=1), few, {"age_years": np.full(BATCH, 50.0)}, **options)
    selection = cohort(tmp_path)
    own_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own_bytes + SET_BYTES // 4, resource.RLIM_INFINITY))
    samples = cache(tmp_path).build(selection, Large()).samples  # type: ignore[arg-type]
    (file,) = (tmp_path / "cache").glob("*/array-0.npy")
    assert file.stat().st_size > SET_BYTES
    assert len(samples) == PATIENTS
    for whole in (lambda: np.load(file, mmap_mode="r"), lambda: np.load(file), lambda: samples["image"]):
        with pytest.raises((OSError, MemoryError)):
            whole()
    ages = np.linspace(20, 90, PATIENTS)
    update = train_locally(phase, phase.start({}, seed=1), samples, {"age_years": ages}, **options)
    assert update.n == PATIENTS
    predicted = predict_columns(phase.predictor(update.weights, device="cpu"), samples, batch_size=BATCH, device="cpu")
    assert np.isfinite(predicted["predicted_years"]).all()
    sys.stdout.write("trained and predicted\n")
