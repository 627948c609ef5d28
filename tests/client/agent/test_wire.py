"""The codec between relay and agent: nothing changes on the way, and nothing out of bounds is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message

from fedage.client.node import wire

DTYPES = ["float64", "float32", "float16", "int64", "int8", "uint16", "bool", "complex64", ">f4", "S7", "U3"]


def message_of(content: RecordDict | None = None, *, error: Error | None = None) -> Message:
    metadata = Metadata(
        run_id=7,
        message_id="m",
        src_node_id=1,
        dst_node_id=2**63,
        reply_to_message_id="",
        group_id="3",
        created_at=1.5,
        ttl=60.0,
        message_type="train",
    )
    return make_message(metadata=metadata, content=content, error=error)


def random_content(rng: np.random.Generator) -> RecordDict:
    content = RecordDict()
    for index in range(rng.integers(0, 6)):
        name = f"record-{index}"
        match rng.integers(0, 4):
            case 0:
                content[name] = ConfigRecord({"b": rng.bytes(50), "s": "ü" * 3, "l": [1, 2], "f": [0.5], "t": True})
            case 1:
                content[name] = MetricRecord({"loss": float(rng.normal()), "counts": [1, 2**63]})
            case 2:
                content[name] = ArrayRecord()
            case _:
                arrays = {}
                for key in range(rng.integers(1, 7)):
                    shape = tuple(rng.integers(0, 5, size=rng.integers(0, 4)))
                    dtype = np.dtype(DTYPES[rng.integers(len(DTYPES))])
                    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
                    arrays[f"k{key}"] = Array(
                        np.frombuffer(rng.integers(0, 2, size, dtype=np.uint8), dtype).reshape(shape)
                    )
                arrays["raw"] = Array(dtype="odd", shape=(2,), stype="none", data=rng.bytes(int(rng.integers(0, 300))))
                content[name] = ArrayRecord(arrays)
    return content


def assert_same(left: Message, right: Message) -> None:
    assert left.metadata == right.metadata
    assert list(left.content) == list(right.content)
    for name, record in left.content.items():
        assert type(record) is type(right.content[name])
        assert list(record.items()) == list(right.content[name].items())


@pytest.mark.parametrize("frame_bytes", [1, 7, 64, 1 << 20])
def test_any_message_comes_back_as_it_was(monkeypatch: pytest.MonkeyPatch, frame_bytes: int) -> None:
    monkeypatch.setattr(wire, "FRAME_BYTES", frame_bytes)
    rng = np.random.default_rng(frame_bytes)
    for _ in range(60):
        message = message_of(random_content(rng))
        frames = list(wire.encode(message))
        assert all(len(frame) == frame_bytes for frame in frames[1:-1])
        assert_same(message, wire.decode(frames))


def test_large_arrays_cross_frame_borders_and_never_enter_protobuf() -> None:
    big = np.arange(700_000, dtype=np.float64)  # 5.6 MB: two borders, neither on an element of the next array
    message = message_of(RecordDict({"w": ArrayRecord({"a": Array(big), "b": Array(big[::-1].copy())})}))
    frames = list(wire.encode(message))
    assert [len(frame) for frame in frames[1:-1]] == [wire.FRAME_BYTES] * (len(frames) - 2)
    back = wire.decode(iter(frames))
    np.testing.assert_array_equal(back.content.array_records["w"]["a"].numpy(), big)
    np.testing.assert_array_equal(back.content.array_records["w"]["b"].numpy(), big[::-1])
    head_bytes = int.from_bytes(frames[0][12:20], "little")
    assert head_bytes < 500


def test_an_error_message_passes() -> None:
    back = wire.decode(wire.encode(message_of(error=Error(code=2, reason="ValueError"))))
    assert back.error == Error(code=2, reason="ValueError")
    assert not back.has_content()


def frames_of_a_message() -> list[bytes]:
    return list(wire.encode(message_of(RecordDict({"w": ArrayRecord({"a": Array(np.arange(600_000.0))})}))))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("nothing at all", lambda f: f[:0]),
        ("no preamble", lambda f: f[1:]),
        ("another protocol", lambda f: [b"x" + f[0][1:], *f[1:]]),
        ("cut short", lambda f: f[:-1]),
        ("a frame missing", lambda f: [f[0], *f[2:]]),
        ("a short frame", lambda f: [f[0], f[1][:-1], *f[2:]]),
        ("one frame too many", lambda f: [*f, b"more"]),
        ("an empty frame at the end", lambda f: [*f, b""]),
        ("drips", lambda f: [f[0], *(bytes([b]) for b in f[1][:100])]),
        ("a skeleton that is no message", lambda f: [f[0], b"\xff" * len(f[1]), *f[2:]]),
        ("more blobs than lengths", lambda f: [f[0][:8] + (9).to_bytes(4, "little") + f[0][12:], *f[1:]]),
        ("no blob", lambda f: [f[0][:8] + (0).to_bytes(4, "little")]),
    ],
)
def test_a_damaged_stream_is_refused(name: str, damage) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(damage(frames_of_a_message()))


def test_a_message_too_large_is_refused_before_its_data_is_read() -> None:
    frames = frames_of_a_message()

    def stream() -> Iterator[bytes]:
        yield frames[0]
        pytest.fail("read on after the preamble")

    with pytest.raises(wire.WireError, match="allowed are 1000"):
        wire.decode(stream(), max_bytes=1000)


def test_an_endless_stream_ends_at_what_it_announced() -> None:
    frames = frames_of_a_message()
    endless = itertools.chain(frames, itertools.repeat(b"x"))
    with pytest.raises(wire.WireError, match="longer"):
        wire.decode(endless)
    assert next(endless) == b"x"


def test_whatever_a_hostile_relay_sends_is_a_message_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_BYTES", 64)
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(400):
        frames = [bytearray(frame) for frame in wire.encode(message_of(random_content(rng)))]
        for _ in range(rng.integers(1, 4)):
            frame = frames[rng.integers(len(frames))]
            frame[rng.integers(len(frame))] = rng.integers(256)
        try:
            assert isinstance(wire.decode([bytes(frame) for frame in frames], max_bytes=100_000), Message)
        except wire.WireError:
            refused += 1
    assert refused > 50
