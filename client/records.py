"""Flower records on the site's side: a message to a request and its payload, an answer to a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedage.common.protocol import (
    PACKED,
    PAYLOAD,
    REPLY,
    REQUEST,
    Payload,
    Reply,
    Request,
    RequestRefused,
    pack,
    unpack,
)


def read_request(message: Message) -> tuple[Request, Payload, bytes]:
    """The request, its arrays and its signature.

    Raises
    ------
    RequestRefused
        Rule `malformed-request`.
    """
    content = message.content
    head = content.config_records.get(REQUEST)
    if head is None:
        raise RequestRefused("malformed-request", "the message has no request record")
    fields = dict(head)
    signature = fields.pop("signature", b"")
    if not isinstance(signature, bytes):
        raise RequestRefused("malformed-request", "signature must be bytes")
    arrays: dict[str, NDArray[Any]] = {}
    record = content.array_records.get(PAYLOAD)
    if record is not None:
        try:
            arrays = unpack(np.asarray(record[PACKED].numpy()))
        except (KeyError, ValueError, TypeError, OSError, EOFError):
            raise RequestRefused("malformed-request", "the payload cannot be read") from None
    return Request.from_fields(fields), arrays, signature


def write_reply(reply: Reply, payload: Mapping[str, NDArray[Any]], *, to: Message) -> Message:
    """The answer as a Flower message."""
    content = RecordDict({REPLY: ConfigRecord(dict(reply.to_fields()))})
    if payload:
        content[PAYLOAD] = ArrayRecord({PACKED: Array(pack(payload))})
    return Message(content, reply_to=to)
