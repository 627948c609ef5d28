"""Series of slices in single files: each becomes one volume, or all its files are out with one reason.

Slices are stored file by file with their positions, so that a slice that is added or removed later changes its series
without the other files being read again. A series that has changed is judged at the end of the indexing; until then,
and if the indexing is interrupted, it is neither in nor out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from fedage.client.cohort.dicom.geometry import Stack, build_stack
from fedage.client.cohort.keys import Keys
from fedage.client.cohort.paths import OBLIQUE, SEPARATOR
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.store.one_person import Statement, why_not_one_person
from fedage.client.site.sqlite import Connection, Row, placed, scalar, scalars
from fedage.common.estimators.takes import CONTRADICTORY

PLACE_NUMBERS = 11
"""Of a slice: its position (3), the directions of its rows and columns (6), distances of rows and columns (2)."""
_AXES = ("LR", "PA", "SI")
"""Ends of DICOM's x, y and z axes: where they point, and where they come from."""

_OF_EXAM = ("patient", "age_years", "age_source", "age_capped", "shifted_day", "manufacturer")
_OF_FILE = ("view", "laterality", "rows", "columns", "photometric", "transfer_syntax", "spacing_known", "burned_in")
_OF_CONTENT = ("body_part", "special")
_OF_PERSON = ("study", "sex", "age_from_years", "age_until_years", "real_day", "is_placeholder_id")
_OF_IMAGE = ("exam", "modality", *_OF_FILE)
_THESE = "SELECT value FROM json_each(:keys)"
_SLICES = ", ".join(
    [f'series."{name}"' for name in ("exam", "sex", "modality", *_OF_EXAM)]
    + [f'slices."{name}"' for name in ("path", "mtime_ns", "size", "place", *_OF_FILE, *_OF_CONTENT)]
    + [f'slices."{name}" AS person_{name}' for name in _OF_PERSON]
    + ["series.key AS series_key", "slices.key AS slice_key"]
)
_SLICES_OF_SERIES = (
    f"SELECT {_SLICES} FROM series JOIN slices ON slices.series = series.key WHERE series.key IN ({_THESE}) "
    "ORDER BY series.key, slices.key"
)
_TAKE_OUT = (
    f"DELETE FROM images WHERE key IN ({_THESE})",
    f"DELETE FROM images WHERE key IN (SELECT key FROM slices WHERE series IN ({_THESE}))",
    f"DELETE FROM rejected_files WHERE path IN (SELECT path FROM slices WHERE series IN ({_THESE}))",
    f"UPDATE series SET judged = 0 WHERE key IN ({_THESE})",
)


@dataclass
class SeriesRows:
    """Rows to write for judged series: patients' sexes and exams by key, images, rejected files."""

    patients: dict[str, str | None] = field(default_factory=dict)
    exams: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)


def volume_path(key: str) -> str:
    """The path of an image that is a series; no file can have this name."""
    return f"{SEPARATOR}{key}"


def is_volume(path: str) -> bool:
    """Whether a path denotes a series; `CohortStore.slices` gives its files."""
    return path.startswith(SEPARATOR)


def build_stack_from_places(places: Sequence[bytes]) -> Stack | Reason:
    """The stack that slices at these stored positions form, or why they form none."""
    if any(len(place) != 8 * PLACE_NUMBERS for place in places):
        return Reason.NO_GEOMETRY
    numbers = np.frombuffer(b"".join(places), dtype="<f8").reshape(-1, PLACE_NUMBERS)
    return build_stack(numbers[:, :3], numbers[:, 3:9], numbers[:, 9:])


def orientation(stack: Stack) -> str:
    """Where rows, columns and slices go as they count up, e.g. `PLS`; and `oblique` if that is only nearly so."""
    letters = ""
    for axis in (1, 2, 0):  # of the affine: slice, row, column
        direction = stack.affine[:3, axis]
        nearest = int(np.abs(direction).argmax())
        letters += _AXES[nearest][0 if direction[nearest] > 0 else 1]
    return f"{letters} {OBLIQUE}" if stack.oblique else letters


def series_of(connection: Connection, paths: Iterable[bytes]) -> set[str]:
    """The series that these files, by sealed path, are slices of."""
    keys = (scalar(connection, "SELECT series FROM slices WHERE path = ?", (path,)) for path in paths)
    return {key for key in keys if key is not None}


def withdraw(connection: Connection, series: Collection[str]) -> None:
    """Delete the results for series that change; they are judged again later."""
    if series:
        for statement in _TAKE_OUT:
            connection.execute(statement, {"keys": placed(series)})


def judge_series(connection: Connection, keys: Keys, *, limit: int) -> SeriesRows | None:
    """Judge the next `limit` series that are not judged yet; None if there are none."""
    unjudged = scalars(connection, "SELECT key FROM series WHERE NOT judged ORDER BY key LIMIT ?", (limit,))
    if not unjudged:
        return None
    rows_to_write = SeriesRows()
    these = {"keys": placed(unjudged)}
    rows = connection.execute(_SLICES_OF_SERIES, these)
    for _, files in groupby(rows, key=lambda row: str(row["series_key"])):
        _judge_one(list(files), keys, rows_to_write)
    connection.execute(f"UPDATE series SET judged = 1 WHERE key IN ({_THESE})", these)
    return rows_to_write


def _judge_one(files: Sequence[Row], keys: Keys, rows_to_write: SeriesRows) -> None:
    """Add the rows for one series; fields that all its files share are taken from the first."""
    first, stack = files[0], _series_stack(files) if len(files) > 1 else None
    if why_not_one_person(map(_statement, files)):
        stack = Reason.SEVERAL_PEOPLE
    if isinstance(stack, Reason):
        rows_to_write.rejected += [_rejected_row(file, stack) for file in files]
        return
    if rows_to_write.patients.get(first["patient"]) is None:
        rows_to_write.patients[first["patient"]] = first["sex"]
    exam = {name: first[name] for name in _OF_EXAM}
    rows_to_write.exams.setdefault(first["exam"], {"key": first["exam"], **exam})
    image = {name: first[name] for name in _OF_IMAGE}
    image |= {name: first[f"person_{name}"] for name in _OF_PERSON}
    image |= {"view": _common(files, "view"), "body_part": _common(files, "body_part")}
    image["special"] = " ".join(sorted({word for file in files for word in file["special"].split()}))
    if stack is None:
        alone = {"key": first["slice_key"], "path": first["path"], "mtime_ns": first["mtime_ns"], "size": first["size"]}
        rows_to_write.images.append({**image, **alone, "slices": 1, "voxel_mm": "", "orientation": ""})
        return
    between_slices, between_rows, between_columns = stack.spacing_mm
    volume = {
        "key": first["series_key"],
        "path": keys.seal(volume_path(first["series_key"])),
        "mtime_ns": _stamp(files),
        "size": sum(file["size"] for file in files),
        "slices": len(files),
        "voxel_mm": f"{between_rows:.4g} {between_columns:.4g} {between_slices:.4g}",
        "orientation": orientation(stack),
    }
    rows_to_write.images.append({**image, **volume, "spacing_known": True})


def _common(files: Sequence[Row], name: str) -> str:
    """What all slices say, or those that say anything; `CONTRADICTORY` where they differ."""
    values = {str(file[name]) for file in files} - {""}
    return CONTRADICTORY if len(values) > 1 else next(iter(values), "")


def _statement(file: Row) -> Statement:
    return Statement(
        exam=file["exam"],
        sex=file["person_sex"],
        age_from_years=file["person_age_from_years"],
        age_until_years=file["person_age_until_years"],
        real_day=file["person_real_day"],
    )


def _series_stack(files: Sequence[Row]) -> Stack | Reason:
    if len({(file["rows"], file["columns"]) for file in files}) > 1:
        return Reason.MIXED_ORIENTATION
    return build_stack_from_places([file["place"] for file in files])


def _rejected_row(file: Row, reason: Reason) -> dict[str, Any]:
    stamp = {"path": file["path"], "mtime_ns": file["mtime_ns"], "size": file["size"]}
    return {**stamp, "reason": str(reason), "modality": file["modality"], "manufacturer": file["manufacturer"]}


def _stamp(files: Sequence[Row]) -> int:
    """A number that changes when a file of a series does."""
    stamps = [(file["slice_key"], file["mtime_ns"], file["size"]) for file in files]
    return int.from_bytes(hashlib.sha256(repr(stamps).encode()).digest()[:7], "big")
