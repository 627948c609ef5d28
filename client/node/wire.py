"""Messages between relay and agent: a skeleton, then raw array data in frames of 2 MB.

A Flower message becomes a list of blobs: first its protobuf with every array emptied, then the data of each array in
order. The blobs travel back to back, cut into frames:

    frame 0         magic, format, number of blobs, the length of each (little endian)
    frames 1 …      the blobs' bytes, every frame but the last exactly `FRAME_BYTES` long

Arrays never pass through protobuf, which would copy each of them several times. The receiver knows the total from frame
0 and refuses it before it has read anything else. Both ends of the socket import this file, so it knows Flower's
messages and nothing of images or models.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

SERVICE = "fedage.Agent"
HANDLE = "Handle"
CANCEL = "Cancel"
STATUS = "Status"

FRAME_BYTES = 2 * 1024 * 1024
MAX_MESSAGE_BYTES = 2 * 1024**3
MAX_BLOBS = 100_000
"""Bounds of one message; a preamble of the most blobs still fits in one frame."""
MAX_SKELETON_BYTES = 32 * 1024 * 1024
"""Bound of what goes through protobuf, where a byte may become an object."""

GRPC_OPTIONS = (
    ("grpc.max_send_message_length", FRAME_BYTES + 1024),
    ("grpc.max_receive_message_length", FRAME_BYTES + 1024),
)

_MAGIC = b"FEDAGE-1"
_COUNT = struct.Struct("<8sI")


class WireError(Exception):
    """A stream is not a message within bounds. The text names sizes only, never content."""


def encode(message: Message) -> Iterator[bytes]:
    """Cut a message into frames."""
    blobs = _split(message)
    yield _COUNT.pack(_MAGIC, len(blobs)) + struct.pack(f"<{len(blobs)}Q", *map(len, blobs))
    pending: list[memoryview | bytes] = []
    filled = 0
    for blob in blobs:
        view = memoryview(blob)
        while view:
            part = view[: FRAME_BYTES - filled]
            pending.append(part)
            filled += len(part)
            view = view[len(part) :]
            if filled == FRAME_BYTES:
                yield b"".join(pending)
                pending, filled = [], 0
    if filled:
        yield b"".join(pending)


def decode(
    frames: Iterable[bytes],
    *,
    max_bytes: int = MAX_MESSAGE_BYTES,
    claim: Callable[[int], None] | None = None,
) -> Message:
    """Put a message back together.

    Parameters
    ----------
    frames
        As `encode` cut them.
    max_bytes
        The largest message accepted.
    claim
        Told the announced number of bytes before any of them is read; it may raise.

    Raises
    ------
    WireError
        If the stream is malformed, cut short, longer than announced, or larger than `max_bytes`.
    """
    stream = iter(frames)
    lengths = _preamble(next(stream, b""), max_bytes=max_bytes)
    if claim is not None:
        claim(sum(lengths))
    return _join(_blobs(stream, lengths))


def _preamble(frame: bytes, *, max_bytes: int) -> list[int]:
    if len(frame) < _COUNT.size:
        raise WireError("the stream has no preamble")
    magic, count = _COUNT.unpack_from(frame)
    if magic != _MAGIC:
        raise WireError("the stream does not start as a message; install the same FedAge release on both sides")
    if not 1 <= count <= MAX_BLOBS or len(frame) != _COUNT.size + 8 * count:
        raise WireError(f"the preamble announces {count} blobs; allowed are 1 to {MAX_BLOBS}, each with its length")
    lengths = list(struct.unpack_from(f"<{count}Q", frame, _COUNT.size))
    if sum(lengths) > max_bytes:
        raise WireError(f"the message has {sum(lengths)} bytes, allowed are {max_bytes}")
    if lengths[0] > MAX_SKELETON_BYTES:
        raise WireError(f"the skeleton has {lengths[0]} bytes, allowed are {MAX_SKELETON_BYTES}")
    return lengths


def _blobs(frames: Iterator[bytes], lengths: Sequence[int]) -> list[bytes]:
    remaining = sum(lengths)
    frame = memoryview(b"")
    blobs = []
    for length in lengths:
        parts: list[memoryview] = []
        while length:
            if not frame:
                frame = memoryview(next(frames, b""))
                if len(frame) != min(FRAME_BYTES, remaining):
                    raise WireError(f"a frame has {len(frame)} bytes, expected {min(FRAME_BYTES, remaining)}")
                remaining -= len(frame)
            parts.append(frame[:length])
            length -= len(parts[-1])
            frame = frame[len(parts[-1]) :]
        blobs.append(b"".join(parts))
    if next(frames, None) is not None:
        raise WireError("the stream is longer than announced")
    return blobs


def _split(message: Message) -> list[bytes]:
    if message.has_error():
        return [message_to_proto(message).SerializeToString()]
    skeleton = RecordDict()
    data: list[bytes] = []
    for name, record in message.content.items():
        if isinstance(record, ArrayRecord):
            skeleton[name] = ArrayRecord({key: _emptied(array) for key, array in record.items()})
            data.extend(array.data for array in record.values())
        else:
            skeleton[name] = record
    head = message_to_proto(make_message(metadata=message.metadata, content=skeleton))
    return [head.SerializeToString(), *data]


def _join(blobs: Sequence[bytes]) -> Message:
    try:
        message = message_from_proto(ProtoMessage.FromString(blobs[0]))
    except (DecodeError, ValueError, TypeError) as error:
        raise WireError(f"the message's skeleton cannot be read ({type(error).__name__})") from None
    records = list(message.content.array_records.values()) if message.has_content() else []
    places = [(record, key) for record in records for key in record]
    if len(places) != len(blobs) - 1:
        raise WireError(f"the skeleton has {len(places)} arrays, the stream {len(blobs) - 1}")
    for (record, key), data in zip(places, blobs[1:], strict=True):
        empty = record[key]
        record[key] = Array(dtype=empty.dtype, shape=empty.shape, stype=empty.stype, data=data)
    return message


def _emptied(array: Array) -> Array:
    return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=b"")
