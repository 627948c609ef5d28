"""Exams from images: a folder of DICOM files, a BIDS data set, one file, or what a site has indexed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fedage.client.cohort.ages import OLDEST_YEARS
from fedage.client.cohort.indexing.bids import index_bids, is_bids
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.selection.row import with_complete_rows, with_row_to_predict
from fedage.client.cohort.store.query import EligibleImage, select
from fedage.client.cohort.store.store import CohortStore
from fedage.client.prediction.exams import NewExams
from fedage.common.bundle.container import Bundle
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import ROW, Estimator, Samples, modalities
from fedage.common.estimators.inputs import image_inputs, row_input
from fedage.common.preprocessing.image import Exam, SampleRefused

_NIFTI = (".nii", ".nii.gz")


@contextmanager
def exams_of_images(data: Path, bundle: Bundle, estimator: Estimator) -> Iterator[NewExams]:
    """The exams of a folder or one file; what is made of them on the way is gone afterwards.

    Raises
    ------
    FedAgeError
        If no exam in it can be predicted, with the reasons.
    """
    with tempfile.TemporaryDirectory(prefix="fedage-predict-") as scratch:  # mode 0700
        work = Path(scratch)
        if data.is_file() and data.name.endswith(_NIFTI):
            yield _one_volume(data, estimator)
            return
        root = data.absolute()
        if data.is_file():
            root = work / "one"
            root.mkdir()
            shutil.copyfile(data, root / data.name)
        with CohortStore.open(work / "home") as store:
            report = index_bids(store, root) if is_bids(root) else index_folder(store, root)
            exams = _selected(store, bundle, estimator, cache=work / "cache", what=str(data), rejected=report.rejected)
        yield exams


def exams_of_store(home: Path, bundle: Bundle, estimator: Estimator) -> NewExams | None:
    """The exams that a site has indexed, each patient's earliest one that has what is needed; None without images.

    Raises
    ------
    FedAgeError
        If none of them can be predicted, with the reasons.
    """
    with CohortStore.open(home) as store:
        if not store.has_images:
            return None
        rejected = store.rejected_by_reason()
        return _selected(store, bundle, estimator, cache=home / "cache", what=str(home), rejected=rejected)


def _selected(
    store: CohortStore,
    bundle: Bundle,
    estimator: Estimator,
    *,
    cache: Path,
    what: str,
    rejected: Mapping[str, int],
) -> NewExams:
    wanted = bundle.description.modality or modalities(estimator)
    inputs = image_inputs(estimator)
    selection = select(store, modalities=wanted, age_min_years=0.0, age_max_years=OLDEST_YEARS, inputs=inputs)
    selection = with_complete_rows(selection, estimator)
    set_aside = Counter(rejected) + Counter(selection.excluded) + Counter(selection.images_not_taken)
    if selection.n == 0:
        raise FedAgeError(_nothing(what, bundle, wanted, set_aside))
    made = SampleCache(cache, root=store.root).build(selection, estimator, workers=os.cpu_count())
    set_aside += Counter(made.rejected)
    if made.selection.n == 0:
        raise FedAgeError(_nothing(what, bundle, wanted, set_aside))
    others = store.counts()["exams"] - selection.n
    notes = (f"{what}: of each patient the earliest exam is taken; exams that are not: {others}",) if others > 0 else ()
    return NewExams(
        names=tuple(map(_path, made.selection.images_by_input)),
        age_years=made.selection.age_years,
        samples=with_row_to_predict(made.samples, made.selection, estimator),
        set_aside=dict(set_aside),
        notes=notes,
    )


def _path(images: Mapping[str, tuple[EligibleImage, ...]]) -> str:
    """The path of an exam's first image, or of its first slice."""
    first = next(iter(images.values()))[0]
    return first.files[0] if first.files else first.path


def _nothing(what: str, bundle: Bundle, wanted: tuple[str, ...], set_aside: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} {code}" for code, count in sorted(set_aside.items())) or "no image was found"
    needed = ", ".join(
        f"{one.name} ({'a volume' if one.rank == 3 else 'an image'})"
        for one in bundle.description.inputs
        if one.rank > 1
    )
    of = f" of modality {' or '.join(wanted)}" if wanted else ""
    needs = f"{bundle.description.estimator} can predict; it needs {needed}{of}"
    return f"{what}: no exam that {needs}; set aside: {reasons}"


def _one_volume(path: Path, estimator: Estimator) -> NewExams:
    # Imported here: readers of images take a moment.
    from fedage.client.cohort.samples.exams import load_eligible

    row = row_input(estimator)
    if row is not None and not row.optional:
        raise FedAgeError(
            f"{path} is one volume, and {estimator.name} also reads {', '.join(estimator.row_columns)} of the patient; "
            "index the volume with its outcomes, then predict the site's exams"
        )
    needed = [one for one in image_inputs(estimator) if not one.optional]
    if len(needed) != 1 or needed[0].rank != 3:
        what = ", ".join(f"{one.name} ({'a volume' if one.rank == 3 else 'an image'})" for one in needed)
        raise FedAgeError(f"{path} is one volume, and {estimator.name} needs {what}; give an exam of that kind")
    try:
        volume = EligibleImage(path=path.name, files=(), rank=3, modality="MR", view="", laterality="")
        image = load_eligible(volume, root=path.parent)
        arrays = estimator.preprocess(Exam({needed[0].name: image}))
    except SampleRefused as refused:
        raise FedAgeError(f"{path} cannot be predicted: {refused}") from None
    samples = Samples({name: np.asarray(array)[None] for name, array in arrays.items()})
    if row is not None:
        nothing_known = np.full((1, len(estimator.row_columns)), np.nan)
        samples = Samples({**samples.arrays, ROW: nothing_known}, {ROW: np.zeros(1, dtype=np.bool_)})
    notes = (f"{path.name}: a file of its own, whose contrast nobody checked and whose patient's age is not known",)
    return NewExams(names=(path.name,), age_years=np.array([np.nan]), samples=samples, notes=notes)
