"""What travels when the sites' sums are hidden from the coordinator: SecAgg+ (Bell et al. 2020, CCS), in four messages.

| stage | the coordinator sends | a site answers |
|---|---|---|
| `channels` | nothing | a public key of its own for this setting-up |
| `keys` | all channels | one public key for each sum to come, and shares of the private halves |
| with the request itself | the keys of one sum | its masked sums, and shares of its own masks' seeds |
| `open` | whose masked sums there are | its shares: of a seed of who is there (its own too), of a key of who is not |

The first two are sent once for several sums. A mask between two sites follows from both their keys of this sum, and
what one adds the other takes away; a site's own mask is taken away at the end, by its seed. That seed follows from a
part of which all have shares and a part that the site alone tells, if it lets the sum be opened. Every site's words are
signed by its audit key, which the campaign file names.

Attack: a coordinator that gives each site other keys (its own, say) reads everything. Rule: a key that is not signed by
the site that the file names is refused, and the masks follow from all keys together. Residual risk: keys that the
coordinator wrote into the file itself; an administrator compares them before approving.
Attack: one mask under two vectors is subtracted. Rule: a key serves one sum; a site marks it as used, on disk, before
it masks, and answers another request for it with a refusal.
Attack: with a site's own seed and its key together its sums are open. Rule: a site answers one `open` for a sum, in
which every other site either is there (shares of its seeds) or is not (a share of its key). The threshold t is more
than half of the n sites that share, so that no two groups of sites give both. Nor does a site tell its own seeds: to it
the coordinator would say that all are there, and to the others that it is missing. Residual risk: t sites that tell an
honest coordinator, or 2t - n sites and one that tells sites different things, open the sums of another.
Attack: sums over few sites, or over two sets of sites that differ by one, are subtracted. Rule: a site lets no sum be
opened to which fewer than `privacy.minimum_sites` contribute, nor one whose sites are others than those of an earlier
sum of the same family (`common.privacy.site_sets`). Without its own part of its seed nobody opens it, whatever the
others give. Residual risk: a site that is gone before it has told that part costs the sum, which is asked for anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedage.common.privacy.ring import derived, digest_of
from fedage.common.privacy.site_sets import SiteSet
from fedage.common.protocol.messages import RUN_NAME, SECURE_PART, Payload, RequestRefused, payload_digest

MASKED = "masked:"
"""Before a block's name in a payload: its masked words."""
UPDATE = "update"
"""The block of a training: the weight, the weight times the loss, the weighted change of all arrays."""
KEYS_AT_ONCE = 9
"""For eight sums, and one that is asked for once more because a site has left."""
MOST_KEYS = 64
NEIGHBOURS = 32
"""Sites that one site shares masks with; up to one more than so many are all neighbours of each other."""
_CONTEXT = b"fedage secure aggregation 1\n"

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]*$", max_length=100_000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[int, Field(ge=0, lt=1 << 64)]
Name = Annotated[str, Field(max_length=200)]


class Message(BaseModel):
    """Base of what is told: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Signed(Message):
    """Base of what a site says of itself to the others; in simulation the signature is empty."""

    site: Name
    digest: Digest
    run: Annotated[str, Field(pattern=RUN_NAME.pattern)]
    epoch: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    signature: Hex = ""

    def signing_bytes(self) -> bytes:
        """What is signed: all but the signature, and which kind of words it is."""
        told = self.model_dump(exclude={"signature"})
        return _CONTEXT + json.dumps([type(self).__name__, told], sort_keys=True).encode()

    def is_signed_by(self, key: str) -> bool:
        """Whether the signature is of the site whose public key this is, 32 bytes in hexadecimal."""
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
            public.verify(bytes.fromhex(self.signature), self.signing_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


class SumId(NamedTuple):
    """What masks follow from beside secrets: the digest of all sites' keys, which of them, what was asked."""

    keys: str
    number: int
    question: str


class Channel(Signed):
    """The public key to which shares for a site are encrypted."""

    key: Hex


class SumKeys(Signed):
    """The public keys of a site for the sums to come, and the channels that their private halves were shared to."""

    channels: Digest
    keys: Annotated[tuple[Hex, ...], Field(min_length=1, max_length=MOST_KEYS)]


class Receipt(Signed):
    """What a site has masked: for which sum, with whom, of what, and what of it is its own.

    Parameters
    ----------
    number
        Which of its keys.
    keys
        Digest of all sites' keys that it masked with.
    question
        Digest of what was asked.
    contributes
        By block, whether its sums are in it; zeros otherwise.
    checks
        By block a masked 1, by which a site is named that masks otherwise than agreed.
    seeds
        By block the digest of the shared part of its own mask's seed.
    may_be_left_out
        Whether it has agreed that sums are opened with and without it, and its own found by subtraction.
    tells
        Whether it tells its own results beside those over all sites.
    """

    number: Annotated[int, Field(ge=0, lt=MOST_KEYS)]
    keys: Digest
    question: Digest
    contributes: dict[Name, bool]
    checks: dict[Name, Word]
    seeds: dict[Name, Digest]
    may_be_left_out: bool = False
    tells: bool = False

    @property
    def of(self) -> SumId:
        """The sum."""
        return SumId(self.keys, self.number, self.question)


class AskChannel(Message):
    """Begin anew."""

    stage: Literal["channels"] = "channels"
    epoch: str


class AskKeys(Message):
    """All channels; whoever is among them is meant."""

    stage: Literal["keys"] = "keys"
    channels: tuple[Channel, ...]
    count: Annotated[int, Field(ge=1, le=MOST_KEYS)]


class AskMasked(Message):
    """With whom to mask the answer to the request that this comes with."""

    stage: Literal["mask"] = "mask"
    number: Annotated[int, Field(ge=0, lt=MOST_KEYS)]
    keys: tuple[SumKeys, ...]


class AskOpen(Message):
    """Whose masked sums there are, with the seeds' shares for this site, and the keys' shares of the others."""

    stage: Literal["open"] = "open"
    receipts: tuple[Receipt, ...]
    shares: dict[Name, str]
    missing: dict[Name, str]


class TellKeys(Message):
    """A site's keys; by site, what is for it alone: its shares of the private halves, encrypted."""

    keys: SumKeys
    shares: dict[Name, str]


class TellMasked(Message):
    """What was masked; by site its shares of the seeds, encrypted."""

    receipt: Receipt
    shares: dict[Name, str]


class TellOpen(Message):
    """What a sum is opened with.

    Parameters
    ----------
    shares
        By site and block, a share of that site's seed.
    missing
        By site whose masked sums are not there, a share of its key.
    checks
        By block and site, what the two of them have masked their checks with.
    refused
        By block why it is not opened.
    own
        By block that may be opened, the part of this site's seed that it alone knows.
    unreadable
        Sites whose shares for this one cannot be read: without them the sum can be asked for anew.
    results
        By block this site's own sums, where it tells them.
    """

    shares: dict[Name, dict[Name, Hex]]
    missing: dict[Name, Hex]
    checks: dict[Name, dict[Name, Word]]
    refused: dict[Name, Annotated[str, Field(max_length=400)]]
    own: dict[Name, Digest] = {}
    unreadable: tuple[Name, ...] = ()
    results: dict[Name, tuple[float, ...]] = {}


M = TypeVar("M", bound=Message)


def join_part(message: Message) -> dict[str, NDArray[np.uint8]]:
    """Payload name for what is told."""
    return {SECURE_PART: np.frombuffer(message.model_dump_json().encode(), dtype=np.uint8)}


def part_of(payload: Payload, kind: type[M]) -> M:
    """What is told in a payload.

    Raises
    ------
    RequestRefused
        Rule `secure-aggregation` if it is not there or not of its form.
    """
    array = payload.get(SECURE_PART)
    try:
        if array is None or array.dtype != np.uint8:
            raise ValueError
        return kind.model_validate_json(array.tobytes())
    except (ValidationError, ValueError):
        raise RequestRefused(
            "secure-aggregation",
            f"the message has no {kind.__name__} that can be read: install the same FedAge release",
        ) from None


def stage_of(payload: Payload) -> str:
    """Which stage a message is of; empty if it says none."""
    try:
        return str(json.loads(payload[SECURE_PART].tobytes())["stage"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return ""


def set_of(block: str, receipts: Sequence[Receipt], *, noised: bool, minimum: int) -> SiteSet:
    """The sites with sums in a block; without the name of one those that answered.

    Parameters
    ----------
    noised
        Whether each site's updates have noise of differential privacy: alone they tell what they are allowed to.
    minimum
        Fewest sites over which a sum is opened.
    """
    there = [receipt for receipt in receipts if not block or receipt.contributes.get(block)]
    sites = frozenset(receipt.site for receipt in there)
    agreed = frozenset(receipt.site for receipt in there if receipt.may_be_left_out)
    return SiteSet(sites=sites, agreed=sites if noised and block == UPDATE else agreed, minimum=minimum)


def question_of(kind: str, *, round_number: int, fold: int, payload: Payload) -> str:
    """Digest of what a request asks, without the keys that it brings."""
    return digest_of(kind, round_number, fold, payload_digest({n: a for n, a in payload.items() if n != SECURE_PART}))


def digest_of_all(signed: Sequence[Signed]) -> str:
    """Digest of what several sites say, in the order of their names."""
    content = b"".join(hashlib.sha256(each.signing_bytes()).digest() for each in sorted(signed, key=lambda e: e.site))
    return hashlib.sha256(content).hexdigest()


def neighbours(site: str, sites: Sequence[str], *, seed: str, degree: int = NEIGHBOURS) -> list[str]:
    """The sites that a site shares masks with, in order: the next on either side of a circle (Bell et al., section 3).

    Parameters
    ----------
    sites
        All of a sum.
    seed
        The order on the circle follows from it: the digest of all channels, which nobody chooses alone.
    degree
        How many, an even number; all others where there are no more.
    """
    others = sorted(set(sites) - {site})
    if len(others) <= degree:
        return others
    circle = sorted(sites, key=lambda name: digest_of(seed, name))
    place = circle.index(site)
    near = {circle[(place + step) % len(circle)] for k in range(1, degree // 2 + 1) for step in (k, -k)}
    return sorted(near)


def threshold_of(sharing: int) -> int:
    """How many of the sites that have a share of something open it: more than half, so that no two groups both do."""
    return sharing // 2 + 1


def pair_seed(shared: bytes, of: SumId, *, block: str, use: Literal["mask", "check"]) -> bytes:
    """The seed of a mask between two sites: of one sum, one question and one block only.

    Parameters
    ----------
    shared
        The secret that both have by the Diffie-Hellman exchange of their keys for this sum.
    """
    return derived(shared, of.keys, of.number, of.question, block, use)


def own_seed(shared: bytes, own: str) -> bytes:
    """The seed of a site's own mask, from its shared part and the part that it alone tells; of zeros that is empty."""
    return derived(shared, own, "own")


def check_word(seed: bytes) -> int:
    """The word that a check is masked with."""
    return int.from_bytes(derived(seed, "check")[:8], "little")


def signed_total(own: str, words: Mapping[str, int]) -> int:
    """Σ± of what a site has in common with others: plus with those after it by name, minus with those before."""
    return sum(word if own < other else -word for other, word in words.items()) % (1 << 64)
