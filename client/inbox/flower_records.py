"""Flower records on the site's side: a message to a request and its payload, an answer to a message."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedage.common.protocol.messages import (
    PACKED,
    PAYLOAD,
    REPLY,
    REQUEST,
    Reply,
    Request,
    RequestRefused,
    packed_bytes,
    packed_digest,
    read_packed,
    unpack,
)

_FRAME_BYTES = 2 * 1024 * 1024


def read_request(message: Message) -> tuple[Request, bytes]:
    """The request and its signature.

    Raises
    ------
    RequestRefused
        Rule `malformed-request`.
    """
    if not message.has_content():
        raise RequestRefused("malformed-request", "the message has no content")
    head = message.content.config_records.get(REQUEST)
    if head is None:
        raise RequestRefused("malformed-request", "the message has no request record")
    fields = dict(head)
    signature = fields.pop("signature", b"")
    if not isinstance(signature, bytes):
        raise RequestRefused("malformed-request", "signature must be bytes")
    return Request.from_fields(fields), signature


def packed_payload(message: Message) -> bytes | memoryview:
    """The bytes of a message's packed payload, none of its arrays read, for the signature; empty if it has none.

    Raises
    ------
    RequestRefused
        Rule `malformed-request`.
    """
    record = message.content.array_records.get(PAYLOAD)
    if record is None:
        return b""
    try:
        return packed_bytes(record[PACKED].data)
    except (KeyError, ValueError, TypeError):
        raise RequestRefused("malformed-request", "the payload cannot be read") from None


def read_payload(message: Message) -> dict[str, NDArray[Any]]:
    """The arrays of a message whose signature is known to be good.

    Raises
    ------
    RequestRefused
        Rule `malformed-request`.
    """
    record = message.content.array_records.get(PAYLOAD)
    if record is None:
        return {}
    try:
        return unpack(read_packed(record[PACKED].data))
    except (KeyError, ValueError, TypeError, OSError, EOFError, MemoryError):
        raise RequestRefused("malformed-request", "the payload cannot be read") from None


def size_bytes(message: Message) -> int:
    """How many bytes a message brings: its arrays, and the texts and bytes of its records."""
    if not message.has_content():
        return 0
    arrays = sum(len(array.data) for record in message.content.array_records.values() for array in record.values())
    values = [value for record in message.content.config_records.values() for value in record.values()]
    return arrays + sum(len(value) for value in values if isinstance(value, str | bytes))


def write_reply(reply: Reply, packed: NDArray[np.uint8] | None, *, to: Message) -> Message:
    """The answer as a Flower message; `packed` is its packed payload, if it has one."""
    content = RecordDict({REPLY: ConfigRecord(dict(reply.to_fields()))})
    if packed is not None:
        content[PAYLOAD] = ArrayRecord({PACKED: Array(packed)})
    return Message(content, reply_to=to)


def stored_frames(reply: Reply, packed: NDArray[np.uint8] | None) -> Iterator[bytes]:
    """A reply as bytes to be stored: its fields, then its packed payload in pieces."""
    yield json.dumps(reply.to_fields(), sort_keys=True).encode()
    if packed is not None:
        for start in range(0, packed.size, _FRAME_BYTES):
            yield packed[start : start + _FRAME_BYTES].tobytes()


def stored_payload_digest(frames: Sequence[bytes]) -> str | None:
    """SHA-256 of a stored reply's packed payload; None if it has none."""
    return packed_digest(b"".join(frames[1:])) if len(frames) > 1 else None


def read_stored(frames: Sequence[bytes], *, to: Message) -> Message:
    """A stored reply as the answer to a message: the same fields and the same payload, byte for byte."""
    content = RecordDict({REPLY: ConfigRecord(json.loads(frames[0]))})
    if len(frames) > 1:
        content[PAYLOAD] = ArrayRecord({PACKED: Array(np.frombuffer(b"".join(frames[1:]), dtype=np.uint8))})
    return Message(content, reply_to=to)
