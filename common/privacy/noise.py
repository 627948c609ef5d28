"""Random numbers that only who holds a secret can repeat: AES-256 in counter mode, as uniform and normal numbers.

Attack: torch's and NumPy's generators are seeded with 32 to 128 bits and are no ciphers; whoever finds the state, or
tries all 2^32 seeds against an update, subtracts the noise. Rule: noise and sampling come from a stream cipher under a
key of 256 bits. Attack: floating-point numbers near a true sum differ in their last bits from those near another
(Mironov 2012, CCS), so that a noised sum may tell which sum it was. Rule: noise is made in 64 bits, and the noised sum
is rounded to `GRID` of the noise's standard deviation, far coarser than the last bits. Residual risk: the time that a
computation takes.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedage.common.statistics.statistic import FloatArray

KEY_BYTES = 32
GRID = 2.0**-20
"""What a noised sum is rounded to, in standard deviations of its noise."""
_BLOCK = 1 << 14
"""Numbers made at a time: what the processor's caches hold."""


def key_for(secret: bytes, *parts: str) -> bytes:
    """A key (32 bytes) for one use, from a secret and what the use depends on."""
    text = b"".join(len(part).to_bytes(8, "big") + part for part in (one.encode() for one in parts))
    return hmac.digest(secret, b"fedage privacy\0" + text, "sha256")


class SecretRandom:
    """A stream of random numbers under a key of 32 bytes; the same key gives the same stream, on every machine."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        # A key is for one stream, so that the counter may start at 0.
        self._stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        self._seed_key = hashlib.sha256(b"seed\0" + key).digest()

    def __repr__(self) -> str:
        return "SecretRandom(…)"

    def seed(self, number: int) -> int:
        """A 63-bit seed of a generator for what needs no cipher, such as augmentation."""
        return int.from_bytes(hmac.digest(self._seed_key, number.to_bytes(8, "big"), "sha256")[:8], "big") >> 1

    def uniform(self, count: int) -> FloatArray:
        """Numbers (count,) in [0, 1), multiples of 2^-53."""
        bits = np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")
        made: FloatArray = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return made

    def normal(self, count: int) -> FloatArray:
        """Standard normal numbers (count,), by Box and Muller."""
        made = np.empty(count + count % 2)
        for start in range(0, made.size, 2 * _BLOCK):
            part = made[start : start + 2 * _BLOCK].reshape(2, -1)
            radius = np.sqrt(-2.0 * np.log1p(-self.uniform(part.shape[1])))
            angle = 2.0 * np.pi * self.uniform(part.shape[1])
            np.multiply(radius, np.cos(angle), out=part[0])
            np.multiply(radius, np.sin(angle), out=part[1])
        return made[:count]


def noised(total: FloatArray, *, sd: float, random: SecretRandom) -> FloatArray:
    """Sums with independent normal noise, rounded to `GRID` · sd."""
    step, flat = sd * GRID, np.ascontiguousarray(total, dtype=np.float64).ravel()
    found = np.empty(flat.size)
    for start in range(0, flat.size, 2 * _BLOCK):
        part = flat[start : start + 2 * _BLOCK]
        found[start : start + 2 * _BLOCK] = np.rint((part + sd * random.normal(part.size)) / step) * step
    return found.reshape(total.shape)
