"""The process that decodes: one file at a time, within limits of memory and time, for the process that started it.

Attack: a file of 2 kB whose compressed stream says 65,000 × 65,000 pixels, which ends the decoder's process or takes
all memory. Rule: files are decoded here, where the end of the process is one file's reason and no more. Residual risk:
a file that makes a decoder run code of its own runs it as the site's user; the decoders are kept current for that.

Requests are lines of JSON on standard input, {kind, path}. An answer on standard output is the length of a JSON text
(8 bytes, big-endian), that text, and the bytes of the array that it announces. An answer {need} asks whether so many
bytes may be used; a line "go" permits it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.decoding.decoder_messages import ENHANCED, IMAGE, LENGTH, SLICE, TIME_LIMIT_S, VOLUME

BASE_BYTES = 512 * 2**20
"""What a file may take before its size is known, above what the process takes by itself."""
BYTES_PER_VALUE = 40
"""What a pixel may take while it goes through the decoder and its LUTs, of which each makes another array."""
MOST_BYTES = 6 * 2**30
LARGE_BYTES = 2**30
"""What the starting process is asked for first, so that it lets one at a time take so much."""


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # decoders write there what they find in a file
    os.dup2(quiet, 2)
    requests = sys.stdin.buffer
    while line := requests.readline():
        # Ends the process in the middle of a decoder too, also where the process that started it is gone.
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S + 5)
        request = json.loads(line)
        limits = _Limits(requests, answers)
        try:
            limits.allow(BASE_BYTES)
            text, array = _decode(request["kind"], Path(request["path"]), limits)
            limits.lift()
            _write(answers, text, array)
        except BaseException as error:  # noqa: BLE001 (a decoder in Rust panics with a BaseException)
            limits.lift()
            _write(answers, {"failed": type(error).__name__}, None)
            return  # what state the decoder is in now is not known
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Limits:
    """How much memory the process may have, above what it had before the file."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests, self._answers = requests, answers
        self._own_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

    def allow(self, count: int) -> None:
        limit = self._own_bytes + min(count, MOST_BYTES)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))

    def for_values(self, values: int) -> None:
        """Allow what an image of so many values takes."""
        count = BASE_BYTES + BYTES_PER_VALUE * values
        if count > LARGE_BYTES:
            _write(self._answers, {"need": count}, None)
            if self._requests.readline().strip() != b"go":
                raise SystemExit(0)
        self.allow(count)

    def lift(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _decode(kind: str, path: Path, limits: _Limits) -> tuple[Mapping[str, Any], NDArray[np.float32] | None]:
    """The answer to a request: what is said in words and numbers, and an array."""
    from fedage.client.cohort.decoding import images, nifti, stacks
    from fedage.client.cohort.reasons import Rejected
    from fedage.common.preprocessing.image import SampleRefused

    try:
        if kind == IMAGE:
            image = images.decode_image(path, on_size=limits.for_values)
            about = {"spacing_mm": image.spacing_mm, "modality": image.modality, "view": image.view}
            return {**about, "shape": image.pixels.shape}, image.pixels
        if kind == VOLUME:
            volume = nifti.decode_volume(path, on_size=limits.for_values)
            return {"spacing_mm": volume.spacing_mm, "shape": volume.pixels.shape}, volume.pixels
        if kind in (SLICE, ENHANCED):
            decode = stacks.decode_slice if kind == SLICE else stacks.decode_enhanced
            values = decode(path, on_size=limits.for_values)
            return {"shape": values.shape}, values
        facts = nifti.decode_facts(path, on_size=limits.for_values)
        return {"rejected": str(facts.code)} if isinstance(facts, Rejected) else {"facts": asdict(facts)}, None
    except SampleRefused as refused:
        return {"refused": refused.code, "detail": str(refused).removeprefix(f"{refused.code}: ")}, None


def _write(answers: BinaryIO, text: Mapping[str, Any], array: NDArray[np.float32] | None) -> None:
    content = json.dumps(text).encode()
    _write_all(answers, LENGTH.pack(len(content)) + content)
    if array is not None:
        _write_all(answers, np.ascontiguousarray(array, dtype="<f4").data.cast("B"))


def _write_all(answers: BinaryIO, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[answers.write(view) :]


if __name__ == "__main__":
    main()
