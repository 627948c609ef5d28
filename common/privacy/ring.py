"""Numbers as whole numbers of a wrapping ring, and the masks that hide them there: what secure aggregation adds up.

A vector is an array (v, w) of unsigned 64-bit words, the lowest first, each row a number of 64 w bits in two's
complement. Sums wrap, so that a vector plus a uniform mask is uniform, and masks that cancel leave the sum exactly. One
word is for model updates, two or more are for statistics, whose entries have ranges of very different size.

A value x becomes the whole number nearest to x 2^places; `places` follow from bounds that are known before any patient
is looked at. The sum over s sites is then off by at most s 2^-(places + 1), and whole numbers are exact.

Masks are the key stream of AES-256 in counter mode, one key for each mask.
"""

from __future__ import annotations

import hashlib
import hmac
import json

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Words = NDArray[np.uint64]

SEED_BYTES = 32
MOST_PLACES = 80
_CHUNK_WORDS = 1 << 16
_ZEROS = bytes(8 * _CHUNK_WORDS)


class OutOfRange(ValueError):
    """A value that is not finite, or not within the bounds that its places were made for."""


def places_of(bounds: FloatArray, *, sites: int, words: int) -> NDArray[np.int64]:
    """Binary places (v,) by which the sum of `sites` values within ±bounds (v,) does not wrap.

    Raises
    ------
    OutOfRange
        If there are none, not even for whole numbers.
    """
    most = np.maximum(np.asarray(bounds, dtype=np.float64), 1.0) * sites
    _, exponents = np.frexp(most)  # most < 2^exponent
    places = np.minimum(64 * words - 2 - exponents.astype(np.int64), MOST_PLACES)
    if np.any(places < 0):
        raise OutOfRange(f"bounds of up to {most.max():g} do not fit into {64 * words} bits")
    found: NDArray[np.int64] = places
    return found


def encode(values: FloatArray, places: NDArray[np.int64] | int, *, bounds: FloatArray | float, words: int) -> Words:
    """Values (v,) as rows of words (v, w).

    Raises
    ------
    OutOfRange
        For a value that is not finite or further from 0 than its bound: it could wrap.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(values)) or np.any(np.abs(values) > bounds):
        raise OutOfRange("a value is not finite, or outside the bounds that the campaign file implies")
    scaled = np.rint(np.ldexp(values, places))
    if words == 1:
        return scaled.astype(np.int64).view(np.uint64)[:, None]
    left = np.abs(scaled)
    found = np.empty((values.size, words), dtype=np.uint64)
    for word in range(words - 1, -1, -1):
        part = np.floor(np.ldexp(left, -64 * word))
        found[:, word] = part.astype(np.uint64)
        left -= np.ldexp(part, 64 * word)
    _negate(found, scaled < 0)
    return found


def decode(total: Words, places: NDArray[np.int64] | int) -> FloatArray:
    """The values (v,) of a sum's words (v, w)."""
    values: FloatArray
    if total.shape[1] == 1:
        values = np.ldexp(total[:, 0].view(np.int64).astype(np.float64), -np.asarray(places))
        return values
    size = total.copy()
    negative = size[:, -1] >= np.uint64(1 << 63)
    _negate(size, negative)
    values = np.zeros(len(size))
    for word in range(size.shape[1] - 1, -1, -1):
        values += np.ldexp(size[:, word].astype(np.float64), 64 * word - np.asarray(places))
    values[negative] *= -1
    return values


def _negate(rows: Words, chosen: NDArray[np.bool_]) -> None:
    """Two's complement of the chosen rows, in place."""
    flipped = ~rows[chosen]
    one = np.zeros_like(flipped)
    one[:, 0] = 1
    add(flipped, one)
    rows[chosen] = flipped


def add(into: Words, other: Words) -> None:
    """Add rows (v, w) in place; what passes the highest word wraps."""
    if into.shape[1] == 1:
        into += other
        return
    carry = np.zeros(len(into), dtype=np.uint64)
    for word in range(into.shape[1]):
        into[:, word] += other[:, word]
        passed = into[:, word] < other[:, word]
        into[:, word] += carry
        carry = (passed | (into[:, word] < carry)).astype(np.uint64)


def subtract(into: Words, other: Words) -> None:
    """Subtract rows (v, w) in place."""
    if into.shape[1] == 1:
        into -= other
        return
    borrow = np.zeros(len(into), dtype=np.uint64)
    for word in range(into.shape[1]):
        passed = into[:, word] < other[:, word]
        into[:, word] -= other[:, word]
        passed |= into[:, word] < borrow
        into[:, word] -= borrow
        borrow = passed.astype(np.uint64)


def add_mask(into: Words, seed: bytes, *, sign: int = 1) -> None:
    """Add the mask of a seed to rows (v, w) in place, or with sign -1 take it away."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a mask's seed has {len(seed)} bytes, it must have {SEED_BYTES}")
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    width, change = into.shape[1], add if sign > 0 else subtract
    buffer = bytearray(8 * _CHUNK_WORDS + 15)
    rows = _CHUNK_WORDS // width
    for start in range(0, len(into), rows):
        part = into[start : start + rows]
        stream.update_into(memoryview(_ZEROS)[: 8 * part.size], buffer)
        change(part, np.frombuffer(buffer, dtype=np.uint64, count=part.size).reshape(part.shape))


def derived(secret: bytes, *parts: str | int) -> bytes:
    """32 bytes that follow from a secret and named parts, and tell nothing of either (HMAC-SHA256)."""
    return hmac.digest(secret, json.dumps(["fedage mask", *parts]).encode(), "sha256")


def digest_of(*parts: str | int | list[str]) -> str:
    """SHA-256 of named parts, hexadecimal."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
