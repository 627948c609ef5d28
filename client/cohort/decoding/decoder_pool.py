"""Decodes files in separate processes, so that a file that ends its decoder affects no other file.

Processes are reused, one file at a time each, as one takes half a second to start. A caller waits for the answer; calls
from several threads use several processes.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.decoding.decoder_messages import LENGTH, MAX_TEXT_BYTES, TIME_LIMIT_S
from fedage.client.cohort.reasons import Reason
from fedage.common.preprocessing.image import SampleRefused

MAX_ARRAY_VALUES = 1 << 28
"""Most values of an array that is taken from a decoder; no file gives more (`MAX_VOXELS`)."""
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TZ")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX")


class DecoderFailed(Exception):
    """The process ended, or was ended at its limit of time. `.detail` says which, and quotes nothing of the file."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


@dataclass(frozen=True)
class Decoded:
    """An answer: its text, and the array that came with it, if any."""

    text: Mapping[str, Any]
    array: NDArray[np.float32] | None


def decode(kind: str, path: Path) -> Decoded:
    """Have a file decoded.

    Raises
    ------
    DecoderFailed
        If the decoder needed more memory or time than an image of this size may, or failed in a way of its own.
    """
    with _pool().borrowed() as decoder:
        return decoder.ask({"kind": kind, "path": os.path.abspath(path)})  # noqa: PTH100 (a member's path holds a NUL)


def decode_array(kind: str, path: Path) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    """Have a file decoded to an array; and what the answer says of it.

    Raises
    ------
    SampleRefused
        With the decoder's reason code, or `decoder-failed` as `decode`.
    """
    try:
        decoded = decode(kind, path)
    except DecoderFailed as failure:
        raise SampleRefused(Reason.DECODER_FAILED, failure.detail) from None
    if "refused" in decoded.text or decoded.array is None:
        raise SampleRefused(str(decoded.text.get("refused")), str(decoded.text.get("detail")))
    return decoded.array, decoded.text


class _Decoder:
    """One process."""

    def __init__(self, large: threading.Lock) -> None:
        self._large = large
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_CORE")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedage.client.cohort.decoding.decoder_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment | dict.fromkeys(_ONE_THREAD, "1"),
            bufsize=0,
        )

    def ask(self, request: Mapping[str, str]) -> Decoded:
        """The answer to one request. Whatever goes wrong ends the process."""
        try:
            return self._ask(request)
        except BaseException:
            self.end()
            raise

    def _ask(self, request: Mapping[str, str]) -> Decoded:
        deadline = time.monotonic() + TIME_LIMIT_S
        self._send(json.dumps(request).encode() + b"\n")
        text = self._text(deadline)
        if "need" in text:
            with self._large:
                deadline = time.monotonic() + TIME_LIMIT_S  # it did not run while it waited
                self._send(b"go\n")
                text = self._text(deadline)
        if "failed" in text:
            raise DecoderFailed(f"the decoder failed ({str(text['failed'])[:40]})")
        return Decoded(text, self._array(text, deadline) if "shape" in text else None)

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def end(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
        except OSError:
            raise DecoderFailed("the decoder's process ended") from None

    def _text(self, deadline: float) -> dict[str, Any]:
        length: int = LENGTH.unpack(self._bytes(LENGTH.size, deadline))[0]
        if length > MAX_TEXT_BYTES:
            raise DecoderFailed("the decoder's answer is malformed")
        try:
            text = json.loads(self._bytes(length, deadline))
        except ValueError:
            text = None
        if not isinstance(text, dict):
            raise DecoderFailed("the decoder's answer is malformed")
        return text

    def _array(self, text: Mapping[str, Any], deadline: float) -> NDArray[np.float32]:
        shape = tuple(int(length) for length in text["shape"])
        if min(shape, default=0) < 1 or int(np.prod(shape, dtype=np.float64)) > MAX_ARRAY_VALUES:
            raise DecoderFailed("the decoder's answer is malformed")
        array = np.empty(shape, dtype="<f4")
        self._into(array.data.cast("B"), deadline)
        return array

    def _bytes(self, count: int, deadline: float) -> bytes:
        content = bytearray(count)
        self._into(memoryview(content), deadline)
        return bytes(content)

    def _into(self, view: memoryview, deadline: float) -> None:
        assert self._process.stdout is not None
        stream = self._process.stdout
        answers = select.poll()  # select.select takes no descriptor above 1023, and an agent may have more files open
        answers.register(stream, select.POLLIN)
        while view:
            if not answers.poll(max(deadline - time.monotonic(), 0.0) * 1000):
                raise DecoderFailed(f"the decoder took longer than {TIME_LIMIT_S} s")
            count = os.readv(stream.fileno(), [view])
            if not count:
                raise DecoderFailed("the decoder's process ended")
            view = view[count:]


@dataclass
class _Pool:
    """Processes that wait for the next file."""

    process: int = field(default_factory=os.getpid)
    idle: list[_Decoder] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    large: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def borrowed(self) -> Iterator[_Decoder]:
        """A process for one file; it goes back unless it has ended."""
        with self.lock:
            decoder = self.idle.pop() if self.idle else None
        if decoder is not None and not decoder.alive:
            decoder.end()
            decoder = None
        decoder = decoder or _Decoder(self.large)
        try:
            yield decoder
        finally:
            with self.lock:
                keep = decoder.alive and len(self.idle) < (os.cpu_count() or 1)
                if keep:
                    self.idle.append(decoder)
            if not keep:
                decoder.end()

    def close(self) -> None:
        """End the processes that wait."""
        with self.lock:
            idle, self.idle = self.idle, []
        for decoder in idle:
            decoder.end()


_shared_pool: _Pool | None = None
_shared_pool_lock = threading.Lock()


def _pool() -> _Pool:
    """The pool of this process; one that was forked off makes its own."""
    global _shared_pool
    with _shared_pool_lock:
        if _shared_pool is None or _shared_pool.process != os.getpid():
            _shared_pool = _Pool()
        return _shared_pool


def close_decoders() -> None:
    """End the processes that wait for a file; the next file starts one anew."""
    if _shared_pool is not None and _shared_pool.process == os.getpid():
        _shared_pool.close()


atexit.register(close_decoders)
