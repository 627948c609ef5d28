"""A bundle from disk, checked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.common.bundle.container import Bundle, BundleRefused, read_bundle
from fedage.deploy.machine.bounded import FileTooLarge, read_at_most

MAX_BUNDLE_BYTES = 4 * 2**30


def load_bundle(path: Path, *, trusted: Collection[Ed25519PublicKey] | None = None) -> tuple[bytes, Bundle]:
    """A bundle and its bytes, signed by one of the keys that are trusted; None for any.

    Raises
    ------
    BundleRefused
        In one line, with the mend.
    """
    try:
        content = read_at_most(path, most_bytes=MAX_BUNDLE_BYTES)
    except FileTooLarge as error:
        raise BundleRefused(f"{path} has {error.strerror}: it is no bundle") from None
    except OSError as error:
        raise BundleRefused(f"{path} cannot be read ({error.strerror}); give the path of a bundle") from None
    return content, read_bundle(content, name=str(path), trusted=trusted)
