"""What a run has been answered, on disk: a resumed run reads it instead of asking the sites again.

All that a run computes follows from its campaign file and the sites' answers. So a run that is started again with the
answers of the one before comes to the same place by itself, whatever phase, fold or exchange that was: there is one
mechanism for all of them, and none of them has a checkpoint of its own. A round of training is kept as its outcome, not
as the sites' updates.

Where sums are hidden (secure aggregation) no site's are here: of a step under way the sum of the masked words and what
opens it, so that a resumed run opens the same sum, by the same seeds, and nobody is asked for others.

Attack: somebody who reads the coordinator's disk sees each site's sums. Rule: the folder is the coordinator's own (mode
0700), holds no single site's update, and is removed when the run has finished. Residual risk: the journal of a run that
failed stays, as it may be resumed; whoever runs the coordinator sees the same sums while a run goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedage.common.protocol.messages import payload_digest
from fedage.deploy.machine.atomic import write_atomically

_META = "fedage"
_KEPT_MODELS = 2
"""Models kept of the rounds of one phase: the last, and the one before should the last be damaged."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Entry:
    """One finished step.

    Parameters
    ----------
    step
        Which: a message kind with its round and fold.
    fields
        JSON: what was told.
    arrays
        The sites' sums.
    model
        The model after a round; empty for other steps, and for rounds that two others of their series follow.
    series
        The rounds that one model is made in, one after another: only the last of them has to keep its model.
    """

    step: str
    fields: Mapping[str, Any]
    arrays: Arrays = field(default_factory=dict)
    model: Arrays = field(default_factory=dict)
    series: str = ""


class Journal:
    """The finished steps of one run in order, and the request that is under way.

    Parameters
    ----------
    folder
        Made when it is first needed, by the mode 0700.

    Raises
    ------
    OSError
        If what is there cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries = _whole(folder)
        self._next = 0
        self._caught_up = not self._entries

    def __len__(self) -> int:
        """How many steps are finished."""
        return len(self._entries)

    def is_replaying(self) -> bool:
        """Whether the run is still where it was before it was resumed."""
        return not self._caught_up

    def caught_up(self) -> None:
        """From now on everything is new."""
        self._caught_up = True

    def is_next(self, step: str) -> bool:
        """Whether the next step as it was is this one; nothing is dropped if it is not."""
        return self._next < len(self._entries) and self._entries[self._next]["step"] == step

    def replayed(self, step: str) -> Entry | None:
        """The next step as it was; None if it has not been finished.

        What follows a step of another name belongs to another course of events and is dropped.
        """
        entry = self._read(self._next) if self._next < len(self._entries) else None
        if entry is None or entry.step != step:
            self._drop_from(self._next)
            self._caught_up = True
            return None
        self._next += 1
        return entry

    def keep(self, entry: Entry, *, replaces: int = 0) -> None:
        """A step that was finished just now, on disk when this returns; in the place of the last ones it `replaces`.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        number = self._next - replaces
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fields: dict[str, Any] = {"step": entry.step, "fields": dict(entry.fields), "series": entry.series}
        if entry.series:
            content = safetensors.numpy.save(dict(entry.model))
            fields["model_sha256"] = hashlib.sha256(content).hexdigest()
            write_atomically(self._model(number), content, mode=0o600)
        write_atomically(self._file(number), _packed(fields, entry.arrays), mode=0o600)
        self._drop_from(number + 1)
        self._entries[number:] = [fields]
        self._next = number + 1
        self._request.unlink(missing_ok=True)
        self._prune()

    def request(self, step: str, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """What identifies the request of the step under way: as noted before if it was sent before, else `fresh`.

        A site that has answered a request gives its stored answer when it comes again, and charges nothing twice.
        """
        try:
            noted = json.loads(self._request.read_text(encoding="utf-8"))
            if noted["step"] == step and noted["after_steps"] == self._next:
                return {**fresh, **noted["fields"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        noted = {"step": step, "after_steps": self._next, "fields": dict(fresh)}
        write_atomically(self._request, json.dumps(noted).encode(), mode=0o600)
        return dict(fresh)

    def remove(self) -> None:
        """Remove what is there: the run has finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _request(self) -> Path:
        return self.folder / "request.json"

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    def _model(self, number: int) -> Path:
        return self.folder / f"{number:06d}.model"

    def _read(self, number: int) -> Entry | None:
        fields, arrays = _unpacked(self._file(number)) or ({}, {})
        if not fields:
            return None
        model: Arrays = {}
        if fields["series"] and self._model(number).is_file():
            model = safetensors.numpy.load(self._model(number).read_bytes())
        return Entry(str(fields["step"]), fields["fields"], arrays, model, str(fields["series"]))

    def _drop_from(self, number: int) -> None:
        for later in range(number, len(self._entries)):
            self._file(later).unlink(missing_ok=True)
            self._model(later).unlink(missing_ok=True)
        del self._entries[number:]

    def _prune(self) -> None:
        """Remove the models of rounds that others of the same series follow."""
        series = self._entries[-1]["series"]
        for number in range(len(self._entries) - 1 - _KEPT_MODELS, -1, -1):
            if not series or self._entries[number]["series"] != series or not self._model(number).is_file():
                return
            self._model(number).unlink()


def _whole(folder: Path) -> list[dict[str, Any]]:
    """What the finished steps tell, as far as they are whole: a run goes on from there.

    Of a series of rounds the last model is needed; where it is damaged, the series goes back to the one before.
    """
    entries: list[dict[str, Any]] = []
    while (entry := _unpacked(folder / f"{len(entries):06d}.safetensors")) is not None:
        entries.append(entry[0])
    for number, told_of in enumerate(entries):
        goes_on = number + 1 < len(entries) and entries[number + 1]["series"] == told_of["series"]
        if told_of["series"] and not goes_on and not _has_its_model(folder, number, told_of):
            end = number
            while end and entries[end - 1]["series"] and not _has_its_model(folder, end - 1, entries[end - 1]):
                end -= 1
            return entries[:end]
    return entries


def _has_its_model(folder: Path, number: int, fields: Mapping[str, Any]) -> bool:
    file = folder / f"{number:06d}.model"
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == fields["model_sha256"]


def _packed(fields: Mapping[str, Any], arrays: Arrays) -> bytes:
    text = json.dumps(fields)
    return safetensors.numpy.save(dict(arrays), metadata={_META: text, "sha256": _digest(text, arrays)})


def _digest(text: str, arrays: Arrays) -> str:
    return hashlib.sha256(text.encode() + payload_digest(arrays).encode()).hexdigest()


def _unpacked(file: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """What a step tells, and its arrays; None if it is not there, or not as it was written."""
    try:
        with safe_open(file, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        text = metadata[_META]
        if _digest(text, arrays) != metadata["sha256"]:
            return None
        return dict(json.loads(text)), arrays
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
