"""A BIDS data set into a store: T1-weighted volumes under `sub-*/[ses-*/]anat` with the label maps that were made of
them, ages and sexes from its tables.

A volume counts as unchanged while its file, its JSON sidecar and what the tables say of its session are as before.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedage.client.cohort.bids.contrast import CONTRAST_ENHANCED, is_contrast_enhanced
from fedage.client.cohort.bids.label_maps import LABEL_MAP, view_of
from fedage.client.cohort.bids.participants import read_json
from fedage.client.cohort.bids.sessions import PARTICIPANTS, STANDARD, BidsLayout, FolderWalk, Session, read_sessions
from fedage.client.cohort.decoding.nifti import read_volume
from fedage.client.cohort.dicom.facts import DicomFacts
from fedage.client.cohort.indexing.index import IndexReport
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.store import CohortStore, FileStamp
from fedage.client.cohort.store.writer import LastIndexing, writing
from fedage.common.errors import FedAgeError

__all__ = ["PARTICIPANTS", "STANDARD", "BidsFacts", "BidsLayout", "index_bids", "is_bids"]

_DESCRIPTION = "dataset_description.json"
_READER = "bids-5"
_BATCH = 100
_PART = re.compile(r"_part-(?!mag_)")
"""In the name of a volume that holds another part of complex values than the magnitude: phase, real, imaginary."""
_Todo = dict[str, tuple[FileStamp, Callable[[], DicomFacts | Rejected]]]
"""By path below the root: a stamp of all that a volume's facts depend on, and how to get them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BidsFacts(DicomFacts):
    """Facts of a volume: besides an image's, how many slices, how long its voxels and where its axes point."""

    slices: int
    voxel_mm: str
    orientation: str


def is_bids(root: Path) -> bool:
    """Whether a folder looks like a BIDS data set, whole or not: by its tables, or by its volumes' places."""
    if any((root / name).is_file() for name in (PARTICIPANTS, _DESCRIPTION)):
        return True
    places = ("sub-*/anat/*.nii*", "sub-*/ses-*/anat/*.nii*")
    return any(next(root.glob(place), None) is not None for place in places)


def _without_participants(root: Path) -> FedAgeError:
    """What is said of a data set whose table of participants is missing, or has another name."""
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    like = sorted(name for name in names if name.casefold().startswith("participants.") and not name.endswith(".json"))
    mend = (
        f"it has {like[0]}: save that table as {PARTICIPANTS}, with tabs between cells"
        if like
        else "add it (participant_id, age, sex), or set data in site.toml to the BIDS data set's own folder; of DICOM "
        'files say layout = "dicom"'
    )
    return FedAgeError(f"{root} is read as a BIDS data set and has no {PARTICIPANTS}, which gives the ages; {mend}")


def index_bids(
    store: CohortStore,
    root: Path,
    *,
    layout: BidsLayout = STANDARD,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Index a data set. Symbolic links are not followed.

    Raises
    ------
    FedAgeError
        If there is no `participants.tsv`, or a table cannot be read; then the store is as it was.
    """
    root = Path(root).absolute()
    if not (root / PARTICIPANTS).is_file():
        raise _without_participants(root)
    with store.exclusive():
        walk = FolderWalk(root)
        planned = _planned(walk, read_sessions(walk, layout))
        below = tuple(f"{folder}/" for folder in walk.closed)  # nobody knows what is there now
        known = store.files()
        gone = [path for path in known if path not in planned and not path.startswith(below)]
        changed = [path for path, file in known.items() if path in planned and planned[path][0] != file.stamp]
        fresh = {*changed, *(planned.keys() - known.keys())}
        todo = [path for path in planned if path in fresh]  # an exam's scanner is that of its first volume
        with writing(store) as writer:
            writer.set_root(root)
            writer.remember(LastIndexing(_READER, ""))
            writer.forget([*gone, *changed])
            writer.prune()  # an exam or a patient read anew may have another age or sex
        for entries in _read(planned, todo, workers=workers, progress=progress):
            with writing(store) as writer:
                writer.add(entries)
        with writing(store) as writer:
            writer.prune()
    return IndexReport(
        files=len(planned),
        new=len(todo),
        unchanged=len(planned) - len(todo),
        removed=len(gone),
        links=walk.links,
        closed_folders=len(walk.closed),
        **store.counts(),
        rejected=store.rejected_by_reason(),
        outcomes={},
        said=(),
    )


def _read(
    planned: _Todo, todo: list[str], *, workers: int | None, progress: Callable[[int, int], None] | None
) -> Iterator[list[tuple[FileStamp, DicomFacts | Rejected]]]:
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), thread_name_prefix="volumes") as pool:
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            read = pool.map(lambda path: planned[path][1](), batch)
            entries = []
            for number, (path, fact) in enumerate(zip(batch, read, strict=True), start=start + 1):
                entries.append((planned[path][0], fact))
                if progress is not None:
                    progress(number, len(todo))
            yield entries


def _planned(walk: FolderWalk, sessions: list[Session]) -> _Todo:
    """Every volume with its stamp; one that vanishes meanwhile is not there."""
    todo: _Todo = {}
    for session in sessions:
        for volume in (*session.volumes, *session.misnamed, *session.label_maps):
            try:
                path, stamp = volume.relative_to(walk.root).as_posix(), _stamp(walk.root, volume, session)
            except OSError:
                continue
            todo[path] = stamp, partial(_facts, walk.root, volume, session)
    return todo


def _sidecars(root: Path, volume: Path) -> tuple[Path, Path]:
    """What is said of all volumes, and of this one, which counts more."""
    return root / "T1w.json", volume.with_name(volume.name.partition(".")[0] + ".json")


def _described(volume: Path, session: Session) -> Path:
    """The volume whose JSON tells the scanner: of a label map that which it was made of."""
    return session.volumes[0] if volume in session.label_maps else volume


def _stamp(root: Path, volume: Path, session: Session) -> FileStamp:
    files = _sidecars(root, _described(volume, session))
    told = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    state = volume.stat()
    of_session = (session.age, session.sex, session.position, str(session.day))
    depends = hashlib.sha256(repr((_READER, state.st_mtime_ns, told, of_session)).encode()).digest()
    return FileStamp(volume.relative_to(root).as_posix(), int.from_bytes(depends[:7], "big"), state.st_size)


def _exam_day(session: Session) -> int | None:
    """What orders a participant's exams: days, else places in the order of labels; None leaves it to their ages."""
    if session.day is not None:
        return session.day.toordinal()
    return None if session.position is None else session.position + 1


def _facts(root: Path, volume: Path, session: Session) -> DicomFacts | Rejected:
    if volume in session.misnamed:
        return Rejected(Reason.MISNAMED, modality="MR")
    if isinstance(session.age, Reason):
        return Rejected(session.age, modality="MR")
    if _PART.search(volume.name):
        return Rejected(Reason.NOT_GREY, modality="MR")
    read = read_volume(volume)
    if isinstance(read, Rejected):
        return read
    of_all, of_this = map(read_json, _sidecars(root, _described(volume, session)))
    place, view, special = volume.name, "T1W", ""
    if volume in session.label_maps:  # two pipelines may give theirs the same name
        place, view, special = volume.relative_to(root).as_posix(), view_of(volume.name), LABEL_MAP
    elif is_contrast_enhanced(volume.name, {**of_all, **of_this}):
        special = CONTRAST_ENHANCED
    return BidsFacts(
        patient_id=session.participant,
        study_uid=session.label or "ses-",
        sop_uid=f"bids/{session.participant}/{session.label}/{place}",
        exam_day=_exam_day(session),
        sex=session.sex,
        age=session.age,
        manufacturer=str({**of_all, **of_this}.get("Manufacturer", "")).strip()[:64],
        modality="MR",
        view=view,
        special=special,
        laterality="",
        rows=read.shape[0],
        columns=read.shape[1],
        photometric="MONOCHROME2",
        transfer_syntax="nifti",
        spacing_known=True,
        slices=read.shape[2],
        voxel_mm=" ".join(f"{length:.4g}" for length in read.spacing_mm),
        orientation=read.orientation,
    )
