"""Parts of a Flower message, several in one request.

Flower asks for each part by a request of its own, and a model is some eight parts. A request for several has a name
that no part has, with the names of all; its content is theirs, each after its length (8 bytes, little endian). FedAge's
SuperLink answers it (`prompt_routes`). Where it does not, the parts are asked for one by one, with Flower's own waits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError, ObjectUnavailableError

TOGETHER_BYTES = 16 << 20
"""More than these are asked for in further requests, so that a connection that breaks does not cost a whole model."""
HOLD_HEADER = "fedage-hold-s"
"""So many seconds a look that finds nothing may be held by the SuperLink until there is something."""

_PREFIX, _BETWEEN, _MOST = "parts:", ",", 500
_LENGTH = struct.Struct("<Q")


def name_of(names: Sequence[str]) -> str:
    """What several parts are asked for by."""
    return _PREFIX + _BETWEEN.join(names)


def names_in(name: str) -> list[str] | None:
    """The parts that a request names together; None if it names one."""
    return name.removeprefix(_PREFIX).split(_BETWEEN) if name.startswith(_PREFIX) else None


def joined(contents: Iterable[bytes]) -> bytes:
    """Several contents in one."""
    return b"".join(piece for content in contents for piece in (_LENGTH.pack(len(content)), content))


def separated(content: bytes) -> Iterator[bytes]:
    """What `joined` made one.

    Raises
    ------
    ValueError
        If it is cut short.
    """
    at, view = 0, memoryview(content)
    while at < len(view):
        if len(view) - at < _LENGTH.size:
            raise ValueError("the parts of a message end within a length")
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if length > len(view) - at:
            raise ValueError(f"a part of {length} bytes is announced, {len(view) - at} are left")
        yield bytes(view[at : at + length])
        at += length


def pull_parts(wanted: Iterable[str], pull: Callable[[str], bytes]) -> dict[str, bytes]:
    """Fetch parts by Flower's function that fetches one of a name; see `inflatable_utils.pull_objects`."""
    left, contents = list(dict.fromkeys(wanted)), dict[str, bytes]()
    while len(left) > 1:
        try:
            found = list(separated(pull(name_of(left[:_MOST]))))
        except (ObjectPullError, ObjectUnavailableError, ValueError):
            break
        if not 0 < len(found) <= len(left):
            break
        contents.update(zip(left, found, strict=False))
        del left[: len(found)]
    return contents | (inflatable_utils.pull_objects(left, pull) if left else {})


def push_parts(parts: Iterable[tuple[str, bytes]], push: Callable[[str, bytes], None]) -> None:
    """Send parts (name, content) by Flower's function that sends one."""
    waiting: dict[str, bytes] = {}
    for name, content in parts:
        if waiting and (sum(map(len, waiting.values())) + len(content) > TOGETHER_BYTES or len(waiting) == _MOST):
            _push(waiting, push)
            waiting = {}
        waiting[name] = content
    if waiting:
        _push(waiting, push)


def _push(parts: dict[str, bytes], push: Callable[[str, bytes], None]) -> None:
    if len(parts) > 1:
        try:
            push(name_of(list(parts)), joined(parts.values()))
        except ObjectPushError:
            pass  # one by one, then; whatever has arrived is known there
        else:
            return
    for name, content in parts.items():
        push(name, content)


def may_be_held(module: ModuleType, *, seconds: float) -> None:
    """Let the requests of Flower's interceptor in `module` say how long they may be held."""
    add = module.add_headers

    def with_hold(request: Any, headers: dict[str, str]) -> None:
        add(request, {**headers, HOLD_HEADER: f"{seconds:g}"})

    setattr(module, "add_headers", with_hold)  # noqa: B010 - the module says that it has none of ours
