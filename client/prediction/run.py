"""`fedage predict`: read a bundle, find the exams, predict, and write a CSV that stays at the site."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedage.client.cohort.table.read import SUFFIXES as TABLES
from fedage.client.prediction.exams import EXAM, OUTSIDE, Hardware, NewExams, predicted_columns
from fedage.client.prediction.tables import Named
from fedage.client.site.home import SiteHome, read_public_key
from fedage.common.bundle.card import limits, line_text
from fedage.common.bundle.container import Bundle
from fedage.common.bundle.description import OVERALL, Line
from fedage.common.bundle.fits import estimator_of, require_weights
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import PREDICTED_YEARS, Estimator, on_tables
from fedage.common.estimators.inputs import image_shapes
from fedage.common.statistics.coarse_grid import CoarseGrid
from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bundle_file import load_bundle

PREDICTIONS = "predictions"
"""Folder in a site's home."""


@dataclass(frozen=True)
class Predicted:
    """What a prediction gave.

    Parameters
    ----------
    file
        The CSV, readable by its owner only.
    columns
        Its columns (n,), without the exams' names.
    said
        Sentences for the terminal: limits of the model, what was read, what was set aside.
    """

    file: Path
    columns: Mapping[str, FloatArray]
    said: tuple[str, ...]


def predict(
    bundle: Path | str,
    *,
    data: Path | str | None = None,
    home: Path | str | None = None,
    key: Path | str | None = None,
    out: Path | str | None = None,
    named: Named | None = None,
    line: str | None = None,
    maps: Path | str | None = None,
    device: str = "auto",
) -> Predicted:
    """Predict the ages of new exams with a bundle. Nothing but the CSV, and the maps if they are asked for, is written,
    and nothing is sent anywhere.

    Parameters
    ----------
    bundle
        The file.
    data
        A table, a folder with DICOM files or a BIDS data set, or one image; what the site has indexed if not given.
    home
        A site's folder: its data, its pinned coordinator's key, its place for predictions.
    key
        Public key of the coordinator who signed the bundle; the site's pinned one if not given.
    out
        The CSV; in the site's folder if not given.
    named
        Columns of a table.
    line
        Whose bias line corrects: a site of the training, or `all sites`. If not given, this site's, else all sites'.
    maps
        An .npz file for where the model looks: by image an array (n, g₁ …) of shares (`compute.saliency`), and `exam`.

    Raises
    ------
    BundleRefused
        If the bundle cannot be trusted, or is none of an estimator installed here.
    FedAgeError
        If the data cannot be read, or are none of the bundle's kind.
    """
    site = SiteHome.load(Path(home)) if home is not None else None
    if key is None and site is None:
        raise FedAgeError("say whom to trust: --home, or --key with the coordinator.pub of whoever exported the bundle")
    if out is None and site is None:
        raise FedAgeError("say where to write with --out; with --home it goes into the site's folder")
    trusted = read_public_key(Path(key)) if key is not None else site.coordinator_key() if site is not None else None
    assert trusted is not None
    _, opened = load_bundle(Path(bundle), trusted=[trusted])
    estimator = estimator_of(opened.description, name=str(bundle))
    require_weights(estimator, opened.weights, name=str(bundle))
    chosen, whose = _line(opened, line, site=site.config.name if site is not None else None)
    hardware = Hardware(device=device, threads=os.cpu_count() or 1)
    with _exams(opened, estimator, data=Path(data) if data is not None else None, site=site, named=named) as exams:
        if not exams.names:
            raise FedAgeError(f"no exam can be predicted; set aside: {_counts(exams.set_aside)}")
        columns = predicted_columns(opened, estimator, exams, line=chosen, hardware=hardware)
        if maps is not None:
            _write_maps(Path(maps), opened, estimator, exams, hardware=hardware)
    file = Path(out) if out is not None else _in_home(site, opened)
    _write(file, exams.names, columns)
    corrected = line_text(whose, chosen) if chosen is not None else "no bias line, so no corrected gap"
    outside = sum(value == 1 for value in columns[OUTSIDE])
    age = next(output for output in estimator.outputs if output.column == PREDICTED_YEARS)
    cut = sum(value in (age.lower, age.upper) for value in columns[PREDICTED_YEARS])
    said = [
        *limits(opened.description),
        *exams.notes,
        f"{len(exams.names)} exams predicted; {corrected}",
        *([f"{outside} of them outside the ages seen in training ({OUTSIDE} = 1)"] if outside else []),
        *([f"{cut} predictions are cut to {age.lower:g} or {age.upper:g} years: look at their rows"] if cut else []),
        *([f"set aside: {_counts(exams.set_aside)}"] if exams.set_aside else []),
    ]
    return Predicted(file=file, columns=columns, said=tuple(said))


def _line(bundle: Bundle, wanted: str | None, *, site: str | None) -> tuple[Line | None, str]:
    """The bias line, and whose it is; None if the bundle has none."""
    description = bundle.description
    if wanted is not None:
        if (found := description.line(wanted)) is None:
            known = [*sorted(description.lines), *([OVERALL] if description.overall_line is not None else [])]
            raise FedAgeError(f"the bundle has no bias line of {wanted!r}; it has {', '.join(known) or 'none'}")
        return found, wanted
    if site is not None and site in description.lines:
        return description.lines[site], site
    return description.overall_line, OVERALL


@contextmanager
def _exams(
    bundle: Bundle, estimator: Estimator, *, data: Path | None, site: SiteHome | None, named: Named | None
) -> Iterator[NewExams]:
    """The exams of a file, a folder, or what the site has indexed."""
    # Imported here: readers of images and of tables take a moment, and one of the two is needed.
    from fedage.client.prediction.images import exams_of_images, exams_of_store
    from fedage.client.prediction.tables import exams_of_table

    takes_rows, what = on_tables(estimator), f"the bundle's {estimator.name}"
    if data is not None and not data.exists():
        raise FedAgeError(f"{data} is not there; give a table, a folder of images, or one image")
    if data is not None and takes_rows:
        if data.is_dir() or data.suffix.lower() not in TABLES:
            kind = "a folder" if data.is_dir() else "no table"
            raise FedAgeError(f"{data} is {kind}, and {what} takes rows of a table; give a {', '.join(TABLES)} file")
        yield exams_of_table(data, bundle, estimator, named=named)
    elif data is not None:
        if data.is_file() and data.suffix.lower() in TABLES:
            raise FedAgeError(f"{data} is a table, and {what} takes images; give a folder of them, or one image")
        with exams_of_images(data, bundle, estimator) as exams:
            yield exams
    elif site is None:
        raise FedAgeError("say what to predict: --data with a table, folder or file, or --home for a site's own data")
    elif takes_rows:
        yield _stored_rows(bundle, estimator, site=site, named=named)
    else:
        found = exams_of_store(site.root, bundle, estimator)
        if found is None:
            raise FedAgeError(f"{site.root} has no images indexed, and {what} takes images; give them with --data")
        yield found


def _stored_rows(bundle: Bundle, estimator: Estimator, *, site: SiteHome, named: Named | None) -> NewExams:
    from fedage.client.cohort.store.store import CohortStore
    from fedage.client.cohort.store.tables import read_table
    from fedage.client.prediction.tables import exams_of_stored_table

    with CohortStore.open(site.root) as store:
        stored = read_table(store)
    if stored is None:
        raise FedAgeError(
            f"{site.root} has no table indexed, and the bundle's {estimator.name} takes one; give it with --data"
        )
    named = named or Named()
    roles = Named(id=None, age=named.age or stored.age, sex=named.sex or stored.sex)
    what = f"the table in {site.root}"
    return exams_of_stored_table(stored.frame, stored.keys, bundle, estimator, named=roles, what=what)


def _in_home(site: SiteHome | None, bundle: Bundle) -> Path:
    assert site is not None
    folder = site.root / PREDICTIONS
    folder.mkdir(mode=0o700, exist_ok=True)
    origin, now = bundle.description.origin, datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return folder / f"{origin.campaign}-{origin.run}-{now}.csv"


def _write(file: Path, names: tuple[str, ...], columns: Mapping[str, FloatArray]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([EXAM, *columns])
    for row, name in enumerate(names):
        writer.writerow([name, *(_cell(float(column[row])) for column in columns.values())])
    try:
        write_atomically(file.absolute(), text.getvalue().encode("utf-8"))
    except OSError as error:
        raise FedAgeError(f"{file} cannot be written ({error.strerror}); give another file with --out") from None


def _write_maps(file: Path, bundle: Bundle, estimator: Estimator, exams: NewExams, *, hardware: Hardware) -> None:
    """Each exam's map on the grid that a campaign asks for by default."""
    from fedage.client.compute.saliency import saliency

    grids = [CoarseGrid.of(name, shape, longest=_CELLS) for name, shape in image_shapes(estimator)]
    if not grids:
        raise FedAgeError(f"--maps: the bundle's {estimator.name} takes no images; leave it out")
    found = saliency(
        estimator.predictor(bundle.weights, device=hardware.device),
        exams.samples,
        grids,
        batch_size=estimator.prediction_batch,
        device=hardware.device,
        threads=hardware.threads,
    )
    ends = np.cumsum([len(grid.columns) for grid in grids])[:-1]
    parts = zip(grids, np.split(found, ends, axis=1), strict=True)
    arrays = {grid.name: part.reshape(-1, *grid.cells) for grid, part in parts}
    written = io.BytesIO()
    np.savez(written, exam=np.array(exams.names), **arrays)  # type: ignore[arg-type]
    try:
        write_atomically(file.absolute(), written.getvalue())
    except OSError as error:
        raise FedAgeError(f"{file} cannot be written ({error.strerror}); give another file with --maps") from None


_CELLS = 8


def _cell(value: float) -> str:
    """A number as it is read again, empty where there is none."""
    return "" if math.isnan(value) else f"{value:.6g}" if value != round(value) else f"{value:.0f}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(counts.items())) or "nothing"
