"""Where the SuperLink keeps the parts of messages: contents in files, what belongs to what in memory and in a log.

Flower keeps them in SQLite, a transaction for each part, which took more than half of a round of 11 MB models at three
sites. In memory alone they would be lost when the SuperLink is started again, and the messages with them. Files are not
synchronised: they survive the end of the process, not that of the machine, after which a run is resumed anyway.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory

_LOG = "log"
_COMPACT_BYTES = 4 << 20
"""A log that has grown longer is written anew, with what is there."""


class FileObjectStore(InMemoryObjectStore):
    """Flower's store in memory, with its contents in files and its changes in a log that the next start reads.

    Parameters
    ----------
    folder
        Made by the mode 0700. One process at a time has it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(verify=True)
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._logging = False
        for change in _changes(folder / _LOG):
            self._apply(change)
        with self.lock_store:
            for object_id, entry in self.store.items():
                entry.is_available = _is_whole(self._file(object_id), object_id)
            for file in folder.iterdir():
                if file.name != _LOG and file.name not in self.store:
                    file.unlink()
        self._logging = True
        self._compact()

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """See `ObjectStore`."""
        with self.lock_store:
            new = super().preregister(run_id, object_tree)
            self._note({"do": "register", "run": run_id, "tree": _text_of(object_tree)})
            return new

    def put(self, object_id: str, object_content: bytes) -> None:
        """See `ObjectStore`."""
        with self.lock_store:
            before = self.store.get(object_id)
            known = before is not None and before.is_available
            super().put(object_id, object_content)
            if known:
                return
            self.store[object_id].content = b""
            # Renamed once it is whole, so that a process that is killed leaves no part of it under its name.
            written = self._folder / f"{object_id}.new"
            written.write_bytes(object_content)
            written.replace(self._file(object_id))

    def get(self, object_id: str) -> bytes | None:
        """See `ObjectStore`."""
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None or not entry.is_available:
                return None if entry is None else b""
            file = self._file(object_id).open("rb")
        with file:  # open, so that it can be read although somebody removes it now
            return file.read()

    def has_all(self, object_id: str) -> bool:
        """Whether an object and all below it are here; True for one that is not known."""
        with self.lock_store:
            entry = self.store.get(object_id)
            return entry is None or (entry.is_available and all(map(self.has_all, entry.child_object_ids)))

    def delete(self, object_id: str) -> None:
        """See `ObjectStore`."""
        with self.lock_store:
            if object_id not in self.store:  # a name from outside is no file's
                return
            self._note({"do": "delete", "object": object_id})
            super().delete(object_id)
            if object_id not in self.store and self._logging:  # what the log tells may have come again since
                self._file(object_id).unlink(missing_ok=True)

    def delete_objects_in_run(self, run_id: int) -> None:
        """See `ObjectStore`."""
        with self.lock_store:
            self._note({"do": "end-run", "run": run_id})
            super().delete_objects_in_run(run_id)
            if self._logging and self._log.stat().st_size > _COMPACT_BYTES:
                self._compact()

    def clear(self) -> None:
        """See `ObjectStore`."""
        with self.lock_store:
            super().clear()
            shutil.rmtree(self._folder)
            self._folder.mkdir(mode=0o700)
            self._log.touch(mode=0o600)

    @property
    def folder(self) -> Path:
        """Where the contents lie."""
        return self._folder

    @property
    def _log(self) -> Path:
        return self._folder / _LOG

    def _file(self, object_id: str) -> Path:
        return self._folder / object_id

    def _apply(self, change: dict[str, Any]) -> None:
        match change["do"]:
            case "register":
                self.preregister(int(change["run"]), ObjectTree.FromString(base64.b64decode(change["tree"])))
            case "delete":
                self.delete(str(change["object"]))
            case "end-run":
                self.delete_objects_in_run(int(change["run"]))

    def _note(self, change: dict[str, Any]) -> None:
        if self._logging:
            with self._log.open("a", encoding="ascii") as log:
                log.write(json.dumps(change) + "\n")

    def _compact(self) -> None:
        """Write the log anew: for each run the messages that are there."""
        with self.lock_store:
            lines = [
                json.dumps({"do": "register", "run": run, "tree": _text_of(self.get_object_tree(object_id))})
                for run, objects in sorted(self.run_objects_mapping.items())
                for object_id in sorted(objects)
                if self.store[object_id].ref_count == 0
            ]
            written = self._folder / f"{_LOG}.new"
            written.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
            written.chmod(0o600)
            written.replace(self._log)


class FileObjectStoreFactory(ObjectStoreFactory):
    """Makes the store beside the SuperLink's database; another database than a file is left to Flower."""

    def store(self) -> Any:
        """The one store of this process."""
        with self._store_lock:
            if self.store_instance is None and Path(self.database).is_absolute():
                database = Path(self.database)
                self.store_instance = FileObjectStore(database.with_name(f"{database.stem}-objects"))
        return super().store()


def _changes(log: Path) -> Iterator[dict[str, Any]]:
    """What was noted, but a line that was cut off."""
    with contextlib.suppress(FileNotFoundError):
        for line in log.read_text(encoding="ascii", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def _text_of(tree: ObjectTree) -> str:
    return base64.b64encode(tree.SerializeToString()).decode()


def _is_whole(file: Path, object_id: str) -> bool:
    try:
        return get_object_id(file.read_bytes()) == object_id
    except (OSError, ValueError):
        return False
