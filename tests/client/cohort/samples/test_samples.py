"""The cache of samples: made once, counted, and never half."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples import cache as samples
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common import estimators
from fedage.common.estimators.base import Input, Options
from fedage.common.preprocessing.image import Exam, SampleRefused
from tests.client.cohort.dicoms import ramp, write


class CornerOptions(Options):
    """What the test estimator can be told."""

    add: float = 0.0


class Corner:
    """A test estimator: the upper left 2 × 2 pixels."""

    name: ClassVar[str] = "corner"

    def __init__(self, *, add: float = 0.0) -> None:
        self.options = CornerOptions(add=add)
        self.calls = 0

    inputs = (Input(name="image", rank=2),)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"image": (1, 2, 2)}

    def preprocess(self, exam: Exam) -> dict[str, NDArray[np.float32]]:
        self.calls += 1
        image = exam["image"]
        if image.view == "LL":
            raise SampleRefused("lateral", "a side view")
        if image.view == "XX":
            raise RuntimeError("a mistake in the estimator")
        sample = image.pixels[None, :2, :2] + np.float32(self.options.add)
        return {"image": sample * np.float32("nan") if image.view == "YY" else sample}


def cohort(tmp_path: Path, **views: str) -> Selection:
    for number, (patient, view) in enumerate(sorted(views.items())):
        write(tmp_path / f"data/{patient}.dcm", patient, ViewPosition=view, pixels=ramp() + np.uint16(100 * number))
    with CohortStore.open(tmp_path / "home", key=bytes(32)) as store:
        index_folder(store, tmp_path / "data")
        return select(store, modalities=("CR",), age_min_years=0, age_max_years=130)


def cache(tmp_path: Path) -> SampleCache:
    return SampleCache(tmp_path / "cache", root=tmp_path / "data")


def test_samples_are_in_the_order_of_the_patients_and_made_once(tmp_path: Path) -> None:
    selection, estimator = cohort(tmp_path, a="PA", b="PA", c="AP"), Corner()
    told: list[tuple[int, int]] = []
    made = cache(tmp_path).build(selection, estimator, progress=lambda done, total: told.append((done, total)))  # type: ignore[arg-type]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert made.selection.keys == selection.keys
    first = {name: ramp()[:2, :2] + 100.0 * number for number, name in enumerate("abc")}
    expected = np.stack([first[Path(images[0]).stem] for images in selection.images])[:, None]
    assert np.array_equal(made.samples["image"], expected)
    assert made.samples["image"].dtype == np.float32
    again = cache(tmp_path).build(selection, estimator)  # type: ignore[arg-type]
    assert estimator.calls == 3
    assert not again.samples.in_memory
    assert np.array_equal(again.samples["image"], made.samples["image"])


def test_refused_images_are_counted_and_their_patients_left_out(tmp_path: Path) -> None:
    selection = cohort(tmp_path, a="PA", b="LL", c="XX", d="YY", e="PA", f="PA")
    (tmp_path / "data/e.dcm").write_bytes(b"damaged since it was indexed")
    for _ in range(2):
        made = cache(tmp_path).build(selection, Corner())  # type: ignore[arg-type]
        assert made.rejected == {"lateral": 1, "not-finite": 1, "preprocessing-failed": 1, "undecodable": 1}
        assert {Path(images[0]).stem for images in made.selection.images} == {"a", "f"}
        assert made.samples["image"].shape == (2, 1, 2, 2)
        assert made.selection.age_years.tolist() == [60.0, 60.0]


def test_another_image_of_the_exam_steps_in(tmp_path: Path) -> None:
    ds = write(tmp_path / "data/lateral.dcm", "a", ViewPosition="LL")
    write(tmp_path / "data/odd.dcm", "a", ViewPosition="ZZ", StudyInstanceUID=ds.StudyInstanceUID)
    made = cache(tmp_path).build(cohort(tmp_path), Corner())  # type: ignore[arg-type]
    assert made.selection.n == 1
    assert made.samples["image"].shape == (1, 1, 2, 2)


def test_nobody_at_all(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    empty = cache(tmp_path).build(cohort(tmp_path), Corner())  # type: ignore[arg-type]
    assert empty.samples["image"].shape == (0, 1, 2, 2)
    all_refused = cache(tmp_path).build(cohort(tmp_path, a="LL"), Corner())  # type: ignore[arg-type]
    assert (all_refused.samples["image"].shape, all_refused.rejected) == ((0, 1, 2, 2), {"lateral": 1})


def test_other_options_cohort_or_files_are_other_samples(tmp_path: Path) -> None:
    selection = cohort(tmp_path, a="PA")
    plain = cache(tmp_path).build(selection, Corner()).samples["image"][0, 0, 0, 0]  # type: ignore[arg-type]
    assert cache(tmp_path).build(selection, Corner(add=1)).samples["image"][0, 0, 0, 0] == plain + 1  # type: ignore[arg-type]
    grown = cohort(tmp_path, a="PA", b="PA")
    assert cache(tmp_path).build(grown, Corner()).samples["image"].shape[0] == 2  # type: ignore[arg-type]
    uid = write(tmp_path / "data/a.dcm", "a").SOPInstanceUID
    (tmp_path / "data/b.dcm").unlink()
    one = cohort(tmp_path)
    before = cache(tmp_path).build(one, Corner()).samples["image"][0, 0, 0, 0]  # type: ignore[arg-type]
    write(tmp_path / "data/a.dcm", "a", SOPInstanceUID=uid, pixels=ramp() + np.uint16(9))
    replaced = cohort(tmp_path)
    assert replaced.snapshot == one.snapshot or replaced.image_keys == one.image_keys
    assert cache(tmp_path).build(replaced, Corner()).samples["image"][0, 0, 0, 0] == before + 9  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [2, 3, 10])
def test_an_estimator_that_preprocesses_otherwise_makes_its_samples_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    selection, estimator = cohort(tmp_path, a="PA"), Corner()
    made = [cache(tmp_path).build(selection, estimator) for _ in range(2)]  # type: ignore[arg-type]
    assert estimator.calls == 1
    monkeypatch.setattr(Corner, "samples_version", version, raising=False)
    made += [cache(tmp_path).build(selection, estimator) for _ in range(2)]  # type: ignore[arg-type]
    assert estimator.calls == 2
    assert all(np.array_equal(one.samples["image"], made[0].samples["image"]) for one in made)


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    selection = cohort(tmp_path, a="PA", b="PA")
    whole = np.array(cache(tmp_path).build(selection, Corner()).samples["image"])  # type: ignore[arg-type]
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    for file, damage in {"array-0.npy": b"", "rows.json": b'{"rows": [0, 1, 2, 3]}'}.items():
        (folder / file).write_bytes(damage)
        assert np.array_equal(cache(tmp_path).build(selection, Corner()).samples["image"], whole)  # type: ignore[arg-type]
    os.truncate(folder / "array-0.npy", (folder / "array-0.npy").stat().st_size - 1)
    assert np.array_equal(cache(tmp_path).build(selection, Corner()).samples["image"], whole)  # type: ignore[arg-type]


def test_a_full_disk_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = cohort(tmp_path, a="PA", b="PA")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(samples.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            cache(tmp_path).build(selection, Corner())  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["build.lock"]
    assert cache(tmp_path).build(selection, Corner()).samples["image"].shape[0] == 2  # type: ignore[arg-type]


def test_killed_in_the_middle_it_starts_again(tmp_path: Path) -> None:
    """A process that dies while it writes: what it leaves is not taken for samples and is cleared away."""
    selection = cohort(tmp_path, a="PA", b="PA", c="PA")
    script = f"""
        import os
        from pathlib import Path
        from tests.client.cohort.samples.test_samples import Corner, cache, cohort
        path = Path({str(tmp_path)!r})
        cache(path).build(cohort(path), Corner(), progress=lambda done, total: os._exit(9) if done == 2 else None)
    """
    root = Path(__file__).parents[4]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=root, env=environment, check=False)
    assert ended.returncode == 9
    assert (tmp_path / "cache" / ".building").is_dir()
    assert cache(tmp_path).build(selection, Corner()).samples["image"].shape[0] == 3  # type: ignore[arg-type]
    assert not (tmp_path / "cache" / ".building").exists()


def test_with_the_real_chest_estimator(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for number in range(3):
        write(tmp_path / f"data/{number}.dcm", f"p{number}", pixels=rng.integers(0, 4000, (150, 140)).astype(np.uint16))
    estimator = estimators.make("chest-ca", {"image_size": 64})
    made = cache(tmp_path).build(cohort(tmp_path), estimator)
    assert made.rejected == {}
    assert made.samples["image"].shape == (3, *estimator.shapes()["image"])
    assert float(made.samples["image"].std()) > 0
