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

from fedage.client.cohort.bids.derivatives import derived_view
from fedage.client.cohort.bids.label_maps import LABEL_MAP, label_map_view
from fedage.client.cohort.bids.participants import read_json
from fedage.client.cohort.bids.session_files import STANDARD, BidsLayout, FolderWalk
from fedage.client.cohort.bids.sessions import PARTICIPANTS, Session, read_sessions
from fedage.client.cohort.decoding.nifti import read_volume
from fedage.client.cohort.dicom.facts import DicomFacts
from fedage.client.cohort.indexing.bids_content import described_content
from fedage.client.cohort.indexing.derived_grids import DerivedGrids
from fedage.client.cohort.indexing.index import IndexReport
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.store import CohortStore, FileStamp
from fedage.client.cohort.store.writer import LastIndexing, writing
from fedage.common.errors import FedAgeError

__all__ = ["PARTICIPANTS", "STANDARD", "BidsFacts", "BidsLayout", "index_bids", "is_bids"]

_DESCRIPTION = "dataset_description.json"
_READER = "bids-10"
_BATCH = 100
_PART = re.compile(r"_part-(?!mag_)")
"""In the name of a volume that holds another part of complex values than the magnitude: phase, real, imaginary."""
_Plan = dict[str, tuple[FileStamp, Callable[[], DicomFacts | Rejected]]]
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
    similar = sorted(
        name for name in names if name.casefold().startswith("participants.") and not name.endswith(".json")
    )
    remedy = (
        f"it has {similar[0]}: save that table as {PARTICIPANTS}, with tabs between cells"
        if similar
        else "add it (participant_id, age, sex), or set data in site.toml to the BIDS data set's own folder; of DICOM "
        'files say layout = "dicom"'
    )
    return FedAgeError(f"{root} is read as a BIDS data set and has no {PARTICIPANTS}, which gives the ages; {remedy}")


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
        planned = _plan(walk, read_sessions(walk, layout))
        closed_prefixes = tuple(f"{folder}/" for folder in walk.closed)  # nobody knows what is there now
        known_files = store.files()
        vanished = [path for path in known_files if path not in planned and not path.startswith(closed_prefixes)]
        changed = [path for path, file in known_files.items() if path in planned and planned[path][0] != file.stamp]
        to_read = {*changed, *(planned.keys() - known_files.keys())}
        paths_to_read = [path for path in planned if path in to_read]  # an exam's scanner is that of its first volume
        with writing(store) as writer:
            writer.set_root(root)
            writer.remember(LastIndexing(_READER, ""))
            writer.forget([*vanished, *changed])
            writer.prune()  # an exam or a patient read anew may have another age or sex
        for entries in _read(planned, paths_to_read, workers=workers, progress=progress):
            with writing(store) as writer:
                writer.add(entries)
        with writing(store) as writer:
            writer.prune()
    return IndexReport(
        files=len(planned),
        new=len(paths_to_read),
        unchanged=len(planned) - len(paths_to_read),
        removed=len(vanished),
        links=walk.links,
        closed_folders=len(walk.closed),
        **store.counts(),
        rejected=store.rejected_by_reason(),
        outcomes={},
        messages=(),
    )


def _read(
    planned: _Plan, paths_to_read: list[str], *, workers: int | None, progress: Callable[[int, int], None] | None
) -> Iterator[list[tuple[FileStamp, DicomFacts | Rejected]]]:
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), thread_name_prefix="volumes") as pool:
        for start in range(0, len(paths_to_read), _BATCH):
            batch = paths_to_read[start : start + _BATCH]
            facts = pool.map(lambda path: planned[path][1](), batch)
            entries = []
            for number, (path, fact) in enumerate(zip(batch, facts, strict=True), start=start + 1):
                entries.append((planned[path][0], fact))
                if progress is not None:
                    progress(number, len(paths_to_read))
            yield entries


def _plan(walk: FolderWalk, sessions: list[Session]) -> _Plan:
    """Every volume with its stamp; one that vanishes meanwhile is not there."""
    todo: _Plan = {}
    grids = DerivedGrids([path for session in sessions for path in session.derived])
    for session in sessions:
        for volume in (*session.volumes, *session.misnamed, *session.label_maps, *session.derived):
            try:
                path, stamp = volume.relative_to(walk.root).as_posix(), _stamp(walk.root, volume, session)
            except OSError:
                continue
            todo[path] = stamp, partial(_facts, walk.root, volume, session, grids)
    return todo


def _sidecars(root: Path, volume: Path) -> tuple[Path, Path]:
    """What is said of all volumes, and of this one, which counts more."""
    return root / "T1w.json", volume.with_name(volume.name.partition(".")[0] + ".json")


def _described_volume(volume: Path, session: Session) -> Path:
    """The volume whose JSON tells the scanner: of a label map or a derived volume that which it was made of."""
    return session.volumes[0] if volume in (*session.label_maps, *session.derived) else volume


def _stamp(root: Path, volume: Path, session: Session) -> FileStamp:
    files = _sidecars(root, _described_volume(volume, session))
    sidecar_stamps = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    state = volume.stat()
    of_session = (session.age, session.sex, session.position, str(session.day))
    digest = hashlib.sha256(repr((_READER, state.st_mtime_ns, sidecar_stamps, of_session)).encode()).digest()
    return FileStamp(volume.relative_to(root).as_posix(), int.from_bytes(digest[:7], "big"), state.st_size)


def _exam_day(session: Session) -> int | None:
    """What orders a participant's exams: days, else places in the order of labels; None leaves it to their ages."""
    if session.day is not None:
        return session.day.toordinal()
    return None if session.position is None else session.position + 1


def _facts(root: Path, volume: Path, session: Session, grids: DerivedGrids) -> DicomFacts | Rejected:
    if not volume.is_file():  # a pipe would be waited for
        return Rejected(Reason.UNREADABLE, modality="MR")
    if volume in session.misnamed:
        return Rejected(Reason.MISNAMED, modality="MR")
    if isinstance(session.age, Reason):
        return Rejected(session.age, modality="MR")
    if _PART.search(volume.name):
        return Rejected(Reason.NOT_GREY, modality="MR")
    volume_facts = read_volume(volume)
    if isinstance(volume_facts, Rejected):
        return volume_facts
    shared_sidecar, own_sidecar = map(read_json, _sidecars(root, _described_volume(volume, session)))
    sidecar = {**shared_sidecar, **own_sidecar}
    identity, view, special, body_part = volume.name, "T1W", "", ""
    if volume in session.label_maps:  # two pipelines may give theirs the same name
        identity, view, special = volume.relative_to(root).as_posix(), label_map_view(volume.name), LABEL_MAP
    elif volume_facts.are_labels:
        return Rejected(Reason.NOT_GREY, modality="MR")
    elif volume in session.derived:
        if not grids.fits(volume, volume_facts, made_of=session.volumes[0]):
            return Rejected(Reason.OTHER_GRID, modality="MR")
        identity, view = volume.relative_to(root).as_posix(), derived_view(volume.name)
    else:
        content = described_content(volume.name, sidecar)
        view, special, body_part = content.view, content.special, content.body_part
    return BidsFacts(
        patient_id=session.participant,
        study_uid=session.label or "ses-",
        sop_uid=f"bids/{session.participant}/{session.label}/{identity}",
        exam_day=_exam_day(session),
        sex=session.sex,
        age=session.age,
        manufacturer=str(sidecar.get("Manufacturer", "")).strip()[:64],
        modality="MR",
        view=view,
        body_part=body_part,
        special=special,
        laterality="",
        rows=volume_facts.shape[0],
        columns=volume_facts.shape[1],
        photometric="MONOCHROME2",
        transfer_syntax="nifti",
        spacing_known=True,
        slices=volume_facts.shape[2],
        voxel_mm=" ".join(f"{length:.4g}" for length in volume_facts.spacing_mm),
        orientation=volume_facts.orientation,
    )
