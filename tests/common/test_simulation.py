"""What a simulation tells its processes: how the machine is shared, and how a run is asked to end."""

from pathlib import Path

import pytest

from fedage.deploy.machine.simulation import VARIABLE, Share, SimulationJob, current_job, share_of


@pytest.mark.parametrize(
    ("sites", "cpus", "gpus", "expected"),
    [
        (3, 2, 0, Share(device="cpu", at_a_time=2, gpus=0, gpu=0.0)),
        (1, 16, 0, Share(device="cpu", at_a_time=1, gpus=0, gpu=0.0)),
        (3, 16, 1, Share(device="cuda", at_a_time=3, gpus=1, gpu=0.3333)),
        (10, 16, 1, Share(device="cuda", at_a_time=4, gpus=1, gpu=0.25)),
        (10, 16, 4, Share(device="cuda", at_a_time=10, gpus=4, gpu=0.3333)),
        (2, 16, 4, Share(device="cuda", at_a_time=2, gpus=4, gpu=1.0)),
        (5, 2, 1, Share(device="cuda", at_a_time=2, gpus=1, gpu=0.5)),
    ],
)
def test_how_a_machine_is_shared(sites: int, cpus: int, gpus: int, expected: Share) -> None:
    assert share_of(sites, cpus=cpus, gpus=gpus) == expected


@pytest.mark.parametrize("sites", [1, 3, 7, 40])
@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_no_gpu_is_given_away_twice(sites: int, gpus: int) -> None:
    share = share_of(sites, cpus=12, gpus=gpus)
    assert 1 <= share.at_a_time <= min(sites, 12)
    assert int(1 / share.gpu) * gpus >= share.at_a_time
    assert int(1 / share.gpu) * share.gpu <= 1


def test_a_job_is_stopped_by_whoever_knows_it(tmp_path: Path) -> None:
    made = SimulationJob(campaign=tmp_path, run="r", folder=tmp_path, stop_file=tmp_path / "stop", sites=())
    again = SimulationJob.model_validate_json(made.model_dump_json())
    assert not again.stopped()
    made.stop()
    assert again.stopped()


def test_stopping_what_is_already_cleared_away_is_nothing(tmp_path: Path) -> None:
    SimulationJob(campaign=tmp_path, run="r", folder=tmp_path, stop_file=tmp_path / "gone/stop", sites=()).stop()
    assert list(tmp_path.iterdir()) == []


def test_writing_a_job_makes_no_simulation_of_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    SimulationJob(campaign=tmp_path, run="r", folder=tmp_path, sites=()).write(tmp_path / "job.json")
    assert current_job() is None
    monkeypatch.setenv(VARIABLE, str(tmp_path / "job.json"))
    assert current_job() == SimulationJob(campaign=tmp_path, run="r", folder=tmp_path, sites=())
