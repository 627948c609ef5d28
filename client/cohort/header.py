"""A walk over the top level of a DICOM file: the values wanted, where the pixels are, whether the file ends early.

Values are skipped by seeking, nothing is converted, sequences are stepped over without recursion, so that a large or
hostile file costs no more than the bytes of its header. The layout is that of PS3.5 section 7; the tests compare with
pydicom.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

UNDEFINED = 0xFFFFFFFF
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"

_LONG_VR = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VR = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_VALUE_BYTES = 4096
_MAX_ELEMENTS = 1_000_000
_MAX_DEPTH = 100


class NotDicom(ValueError):
    """No DICM prefix."""


class Malformed(ValueError):
    """The header breaks the rules, or is absurdly long or deep."""


class EndsEarly(ValueError):
    """An element goes on after the end of the file."""


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data is: tag, offset of its value in the file, length (`UNDEFINED` if encapsulated)."""

    tag: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """The wanted values, raw, and the pixel element if there is one."""

    transfer_syntax: str
    little_endian: bool
    values: Mapping[int, bytes]
    pixels: PixelElement | None


def read_header(stream: BinaryIO, *, size: int, wanted: frozenset[int]) -> Header:
    """Walk over a file of `size` bytes up to its pixel data.

    Raises
    ------
    NotDicom, Malformed, EndsEarly
        What is wrong with it.
    """
    if stream.read(132)[128:] != b"DICM":
        raise NotDicom
    meta = _Walk(stream, size=size, implicit=False, little=True)
    syntax = ""
    while (element := meta.peek_group(2)) is not None:
        tag, length = element
        if tag == 0x00020010:
            syntax = meta.value(length).rstrip(b"\0 ").decode("ascii", "replace")
        else:
            meta.skip(length)
    if syntax == DEFLATED:
        return Header(transfer_syntax=syntax, little_endian=True, values={}, pixels=None)
    little = syntax != EXPLICIT_BIG
    walk = _Walk(stream, size=size, implicit=_is_implicit(stream), little=little)
    values: dict[int, bytes] = {}
    while (element := walk.next()) is not None:
        tag, length = element
        if tag in PIXEL_TAGS:
            found = PixelElement(tag=tag, offset=stream.tell(), length=length)
            return Header(transfer_syntax=syntax, little_endian=little, values=values, pixels=found)
        if tag in wanted and length <= _MAX_VALUE_BYTES:
            values[tag] = walk.value(length)
        else:
            walk.skip(length)
    return Header(transfer_syntax=syntax, little_endian=little, values=values, pixels=None)


def _is_implicit(stream: BinaryIO) -> bool:
    """Whether the next element has no VR: files that contradict their transfer syntax are read as they are written."""
    here = stream.tell()
    vr = stream.read(6)[4:]
    stream.seek(here)
    return not _is_vr(vr)


def _is_vr(text: bytes) -> bool:
    return len(text) == 2 and text.isalpha() and text.isupper()


class _Walk:
    """Position in a run of data elements."""

    def __init__(self, stream: BinaryIO, *, size: int, implicit: bool, little: bool) -> None:
        self._stream, self._size, self._implicit = stream, size, implicit
        order = "<" if little else ">"
        self._tag_and_rest = struct.Struct(f"{order}HH4s").unpack
        self._short = struct.Struct(f"{order}2xH").unpack
        self._long = struct.Struct(f"{order}L").unpack
        self._left = _MAX_ELEMENTS

    def next(self) -> tuple[int, int] | None:
        """Tag and length of the next element, the stream then at its value; None at the end of the file."""
        head = self._stream.read(8)
        if len(head) < 8:
            if head:
                raise EndsEarly
            return None
        self._left -= 1
        if self._left < 0:
            raise Malformed
        group, element, rest = self._tag_and_rest(head)
        tag = group << 16 | element
        vr = rest[:2]
        if self._implicit or group == 0xFFFE:
            return tag, self._long(rest)[0]
        if vr in _SHORT_VR:
            return tag, self._short(rest)[0]
        if vr not in _LONG_VR:  # a VR of tomorrow, or none at all
            return tag, (self._short if _is_vr(vr) else self._long)(rest)[0]
        more = self._stream.read(4)
        if len(more) < 4:
            raise EndsEarly
        return tag, self._long(more)[0]

    def peek_group(self, group: int) -> tuple[int, int] | None:
        """Like `next` while the next element is of this group; otherwise None, the stream where it was."""
        here = self._stream.tell()
        found = self.next()
        if found is not None and found[0] >> 16 == group:
            return found
        self._stream.seek(here)
        return None

    def value(self, length: int) -> bytes:
        """The value of the element just met."""
        if length == UNDEFINED:
            raise Malformed
        value = self._stream.read(length)
        if len(value) < length:
            raise EndsEarly
        return value

    def skip(self, length: int) -> None:
        """Go to the end of the element just met, whatever is nested in it."""
        if length != UNDEFINED:
            self._forward(length)
            return
        ends = [_SEQUENCE_END]  # what closes each open sequence or item, innermost last
        while ends:
            found = self.next()
            if found is None:
                raise EndsEarly
            tag, length = found
            if tag == ends[-1]:
                ends.pop()
            elif length != UNDEFINED:
                self._forward(length)
            elif len(ends) < _MAX_DEPTH:
                ends.append(_ITEM_END if tag == _ITEM else _SEQUENCE_END)
            else:
                raise Malformed

    def _forward(self, length: int) -> None:
        if self._stream.seek(length, os.SEEK_CUR) > self._size:
            raise EndsEarly
