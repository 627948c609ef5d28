"""Which requests a site has seen, and what it answered: a message counts once, and its answer can be given again.

A request is known by campaign digest, run and nonce. Three things may meet one that is not new:

* `AGAIN` with its stored answer: the same content was answered before; the same bytes can go out once more, and nothing
  is charged or computed.
* `UNFINISHED`: the same content was begun and nothing left, for instance because the agent was killed. It may be done
  anew under the same nonce.
* `REPLAYED`: another content under a used nonce, an answer that is no longer stored, or a run that was closed.
  Computing anew would be a second release, so it is refused and the coordinator sends a new nonce.

`Nonces.once` is the strict form: whatever is not new is a replay.

The memory is bounded without ever forgetting a nonce: when it is full, whole runs that were quiet longest are *closed*;
a closed run is one row, and all its messages are replays from then on.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fedage.client.site.cancel import wait_for
from fedage.client.site.durable import LOCK_WAIT_S, DurableFile, StoreUnavailable, named_failures
from fedage.client.site.sqlite import Connection, Tables, insert, scalar, scalars
from fedage.common.protocol.messages import REPLAY, RequestRefused
from fedage.deploy.machine.atomic import sync

NONCES_FILE = "nonces.db"
REPLIES_FOLDER = "replies"

_HEADER_BYTES = 8
_AGAIN = "this site has had this message before; send it again with a new nonce"
_STALE_S = 24 * 3600.0

_TABLES: Tables = {
    "seen": (
        "CREATE TABLE seen (request VARCHAR(64) NOT NULL, run VARCHAR(64) NOT NULL, content VARCHAR(64) NOT NULL, "
        "answered BOOLEAN NOT NULL, reply_sha256 VARCHAR(64), reply_bytes INTEGER NOT NULL, "
        "reply_order INTEGER NOT NULL, PRIMARY KEY (request))",
        "CREATE INDEX ix_seen_run ON seen (run)",
    ),
    "runs": (
        "CREATE TABLE runs (run VARCHAR(64) NOT NULL, requests INTEGER NOT NULL, turn INTEGER NOT NULL, "
        "closed BOOLEAN NOT NULL, PRIMARY KEY (run))",
        "CREATE INDEX ix_runs_turn ON runs (turn)",
    ),
}


class NoncesUnavailable(StoreUnavailable):
    """The memory of requests cannot be read or written: nothing may be answered."""


class Replayed(RequestRefused):
    """A request that may not be answered again."""

    def __init__(self, detail: str) -> None:
        super().__init__(REPLAY, detail)


class Claim(Enum):
    """What a request is to this site."""

    NEW = "new"
    UNFINISHED = "unfinished"
    AGAIN = "again"
    REPLAYED = "replayed"


@dataclass(frozen=True, kw_only=True)
class RequestId:
    """What makes a request itself. `content` is SHA-256 over everything in it, e.g. of its signing bytes."""

    digest: str
    run: str
    nonce: str
    content: str

    @property
    def run_key(self) -> str:
        """Stands for digest and run."""
        return _sha256(self.digest, self.run)

    @property
    def key(self) -> str:
        """Stands for digest, run and nonce."""
        return _sha256(self.digest, self.run, self.nonce)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what is kept.

    Parameters
    ----------
    nonces
        Requests remembered one by one.
    runs
        Runs remembered, closed ones included; no further run is answered beyond that.
    reply_bytes
        Largest answer stored.
    total_bytes
        All stored answers together; the oldest go first.
    """

    nonces: int = 1_000_000
    runs: int = 100_000
    reply_bytes: int = 1 << 30
    total_bytes: int = 4 << 30


class Nonces:
    """The memory of requests in a site's home: `nonces.db` and the folder `replies`.

    Raises
    ------
    NoncesUnavailable
        If the files cannot be used; from every method too.
    """

    def __init__(self, home: Path, *, limits: Limits | None = None, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._limits = limits or Limits()
        self._folder = home / REPLIES_FOLDER
        self._file = DurableFile(
            home / NONCES_FILE, tables=_TABLES, unavailable=NoncesUnavailable, lock_wait_s=lock_wait_s
        )
        with self._named():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._sweep()

    def claim(self, request: RequestId) -> Claim:
        """Remember a request, on disk, and say what it is. Of two that come at once, one is `NEW`.

        Only verified requests belong here: what anybody may send would fill the memory.

        Raises
        ------
        Replayed
            If no further request of this run can be remembered.
        """
        with self._file.transaction() as connection:
            chosen = "SELECT content, answered, reply_sha256 FROM seen WHERE request = ?"
            row = connection.execute(chosen, (request.key,)).fetchone()
            if row is None:
                return self._remember(connection, request)
        if row["content"] != request.content:
            return Claim.REPLAYED
        if not row["answered"]:
            return Claim.UNFINISHED
        with self._named():
            return Claim.AGAIN if self._is_whole(request.key, row["reply_sha256"]) else Claim.REPLAYED

    def once(self, request: RequestId) -> None:
        """Remember a request that may come once only.

        Raises
        ------
        Replayed
            If it is not new.
        """
        if self.claim(request) is not Claim.NEW:
            raise Replayed(_AGAIN)

    def keep_reply(self, request: RequestId, frames: Iterable[bytes]) -> bool:
        """Mark a claimed request as answered and store its answer, on disk, before it leaves.

        Returns
        -------
        bool
            Whether it was stored; an answer beyond the bounds is not, and the request is a replay if it comes again.

        Raises
        ------
        Replayed
            If the request was answered before (this answer must not leave), or was not claimed.
        """
        unfinished = self._path(request.key).with_suffix(".new")
        with self._named():
            size_bytes, sha256 = _write(unfinished, frames, at_most=self._limits.reply_bytes)
            with self._file.transaction() as connection:
                answered = scalar(connection, "SELECT answered FROM seen WHERE request = ?", (request.key,))
                if answered is None or answered:
                    unfinished.unlink(missing_ok=True)
                    raise Replayed("this message was answered before, or its run was closed")
                if sha256 is not None:
                    unfinished.replace(self._path(request.key))
                    sync(self._folder)
                connection.execute(
                    "UPDATE seen SET answered = 1, reply_sha256 = ?, reply_bytes = ?, "
                    "reply_order = (SELECT max(reply_order) FROM seen) + 1 WHERE request = ?",
                    (sha256, size_bytes, request.key),
                )
                dropped = _drop_oldest(connection, total_bytes=self._limits.total_bytes)
            self._unlink(dropped)
        return sha256 is not None and request.key not in dropped

    def reply(self, request: RequestId) -> Iterator[bytes]:
        """The frames of a stored answer, byte for byte; ask only after `claim` said `AGAIN`."""
        with self._named(), self._path(request.key).open("rb") as file:
            while header := file.read(_HEADER_BYTES):
                yield file.read(int.from_bytes(header, "big"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _remember(self, connection: Connection, request: RequestId) -> Claim:
        closed = scalar(connection, "SELECT closed FROM runs WHERE run = ?", (request.run_key,))
        if closed:
            return Claim.REPLAYED
        turn = scalar(connection, "SELECT coalesce(max(turn), 0) FROM runs") + 1
        if closed is None:
            if scalar(connection, "SELECT count(*) FROM runs") >= self._limits.runs:
                raise Replayed("this site can remember no further run")
            insert(connection, "runs", {"run": request.run_key, "requests": 0, "turn": turn, "closed": False})
        self._unlink(_make_room(connection, request.run_key, nonces=self._limits.nonces))
        one_more = "UPDATE runs SET requests = requests + 1, turn = ? WHERE run = ?"
        connection.execute(one_more, (turn, request.run_key))
        unanswered = {"answered": False, "reply_bytes": 0, "reply_order": 0}
        this = {"request": request.key, "run": request.run_key, "content": request.content}
        insert(connection, "seen", this | unanswered)
        return Claim.NEW

    def _is_whole(self, key: str, sha256: str | None) -> bool:
        """Whether a stored answer is there as it was written."""
        if sha256 is None or not self._path(key).is_file():
            return False
        with self._path(key).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def _sweep(self) -> None:
        """Remove files that a crash left behind and no request knows."""
        with self._file.reading() as connection:
            known = set(scalars(connection, "SELECT request FROM seen WHERE reply_sha256 IS NOT NULL"))
        for path in self._folder.iterdir():
            if path.name not in known and time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink(missing_ok=True)

    def _unlink(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / key

    @contextmanager
    def _named(self) -> Iterator[None]:
        with named_failures(self._file.path, unavailable=NoncesUnavailable):
            yield


class Claims:
    """Requests that one process is answering now: a copy of one waits for that, and then gets the stored answer."""

    def __init__(self, nonces: Nonces) -> None:
        self._nonces, self._lock = nonces, threading.Lock()
        self._answering: set[str] = set()

    @contextmanager
    def claimed(self, request: RequestId) -> Iterator[bool]:
        """Remember a verified request and hold back a second copy of itself while it is answered.

        A coordinator whose connection to this site was slow for a while sends a message again. To refuse that would
        cost the campaign a site that is at work.

        Yields whether it was answered before, and the stored answer is to be sent once more.

        Raises
        ------
        Replayed
            If it is not to be answered.
        Cancelled
            If nobody waits for this copy any more.
        """
        wait_for(lambda: self._taken(request.key))
        try:
            claim = self._nonces.claim(request)
            if claim is Claim.REPLAYED:
                raise Replayed(_AGAIN)
            yield claim is Claim.AGAIN
        finally:
            with self._lock:
                self._answering.discard(request.key)

    def _taken(self, key: str) -> bool:
        """Take a request's place unless somebody has it."""
        with self._lock:
            if key in self._answering:
                return False
            self._answering.add(key)
            return True


def _make_room(connection: Connection, run: str, *, nonces: int) -> list[str]:
    """Close the runs quiet longest until one more request fits; the keys whose answers can go."""
    dropped: list[str] = []
    while scalar(connection, "SELECT sum(requests) FROM runs") >= nonces:
        others = "SELECT run FROM runs WHERE NOT closed AND run != ? ORDER BY turn LIMIT 1"
        quiet = scalar(connection, others, (run,))
        if quiet is None:
            raise Replayed("this site can remember no further message of this run; begin a new run")
        dropped += scalars(connection, "SELECT request FROM seen WHERE run = ?", (quiet,))
        connection.execute("DELETE FROM seen WHERE run = ?", (quiet,))
        connection.execute("UPDATE runs SET closed = 1, requests = 0 WHERE run = ?", (quiet,))
    return dropped


def _drop_oldest(connection: Connection, *, total_bytes: int) -> list[str]:
    """Forget the oldest stored answers until the rest fits; their keys."""
    dropped: list[str] = []
    stored = "reply_sha256 IS NOT NULL"
    while (scalar(connection, f"SELECT sum(reply_bytes) FROM seen WHERE {stored}") or 0) > total_bytes:
        oldest = scalar(connection, f"SELECT request FROM seen WHERE {stored} ORDER BY reply_order LIMIT 1")
        connection.execute("UPDATE seen SET reply_sha256 = NULL, reply_bytes = 0 WHERE request = ?", (oldest,))
        dropped.append(oldest)
    return dropped


def _write(path: Path, frames: Iterable[bytes], *, at_most: int) -> tuple[int, str | None]:
    """Frames with their lengths before them, synchronised; size and SHA-256 of the file, or None if it is too large.

    Not by `atomic_file`: the file takes its place inside the transaction that marks its request as answered.
    """
    size_bytes, sha256 = 0, hashlib.sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for frame in frames:
            size_bytes += _HEADER_BYTES + len(frame)
            if size_bytes > at_most:
                path.unlink()
                return 0, None
            for part in (len(frame).to_bytes(_HEADER_BYTES, "big"), frame):
                sha256.update(part)
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return size_bytes, sha256.hexdigest()


def _sha256(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
