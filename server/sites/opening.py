"""Taking the masks off a sum, once the sites have told what of them does not cancel; and naming who masked otherwise.

Notation: block b, sites u and v; c_u the masked check of u, r_u the word of its own seed, r_uv that of two sites.
Masked as agreed, c_u − r_u − Σ± r_uv = 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key

from fedage.common.privacy import ring
from fedage.common.protocol.secure import (
    Receipt,
    TellOpen,
    check_word,
    neighbours,
    own_seed,
    pair_seed,
    signed_total,
    threshold_of,
)

_TRIES = 40
"""Groups of shares that are tried where some of them are not the sender's."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What is known of one sum.

    Parameters
    ----------
    keys
        By member, its public key for this sum.
    channels
        The sites that shares were made for.
    seed
        What the neighbours follow from.
    receipts
        By site whose masked sums are in the sum.
    missing
        Members whose are not.
    told
        By site what it told to open the sum.
    """

    keys: Mapping[str, str]
    channels: tuple[str, ...]
    seed: str
    receipts: Mapping[str, Receipt]
    missing: tuple[str, ...]
    told: Mapping[str, TellOpen]

    def near(self, site: str) -> list[str]:
        """Who shares masks of this sum with a site."""
        return [other for other in self.sharing(site) if other in self.keys]

    def own_part(self, site: str, block: str) -> str | None:
        """The part of a site's seed that it alone tells; of zeros it is empty, None where it is not told."""
        if not self.receipts[site].contributes.get(block):
            return ""
        return self.told[site].own.get(block) if site in self.told else None

    def sharing(self, site: str) -> list[str]:
        """Who has shares of a site's key, beside itself."""
        return neighbours(site, self.channels, seed=self.seed)


@dataclass
class _Found:
    """What is worked out on the way."""

    faults: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    secrets: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """By missing site and neighbour, what the two have in common."""


def opened_totals(
    opening: Opening, sums: Mapping[str, ring.Words]
) -> tuple[dict[str, ring.Words], dict[str, str], dict[str, str]]:
    """The sums without their masks, in place; why a block is not opened; who did otherwise than agreed, in words."""
    found = _Found()
    for told in opening.told.values():
        for block, reason in told.refused.items():
            if block in sums:
                found.refused.setdefault(block, reason)
    _keys_of_missing(opening, found, blocks=sums)
    totals = {}
    for block, rows in sums.items():
        if block in found.refused:
            continue
        own = {site: opening.own_part(site, block) for site in opening.receipts}
        untold = [site for site, part in own.items() if part is None]
        if untold:
            found.refused[block] = f"{', '.join(untold)} did not let it be opened"
            continue
        seeds = {site: _seed(opening, found, site, block) for site in opening.receipts}
        without = [site for site, seed in seeds.items() if seed is None]
        if without:
            found.refused[block] = f"the seeds of {', '.join(without)} could not be put together from the shares"
            continue
        known = {site: own_seed(seed, own[site] or "") for site, seed in seeds.items() if seed is not None}
        if _must_not_count(opening, found, block, known):
            continue
        for seed in known.values():
            ring.add_mask(rows, seed, sign=-1)
        for (missing, site), secret in found.secrets.items():
            seed = pair_seed(secret, opening.receipts[site].of, block=block, use="mask")
            ring.add_mask(rows, seed, sign=-1 if site < missing else 1)
        totals[block] = rows
    return totals, found.refused, found.faults


def _seed(opening: Opening, found: _Found, site: str, block: str) -> bytes | None:
    """The shared part of a site's own seed, from its neighbours' shares and its own."""
    digest = opening.receipts[site].seeds.get(block, "")
    shares = {holder: told.shares.get(site, {}).get(block, "") for holder, told in opening.told.items()}
    threshold = threshold_of(len(opening.near(site)) + 1)
    for combined, used in _combined(shares, threshold=threshold):
        if ring.digest_of(combined.hex()) == digest:
            _name_odd_shares(found, shares, used, combined=combined, of=site, threshold=threshold)
            return combined
    return None


def _keys_of_missing(opening: Opening, found: _Found, *, blocks: Mapping[str, ring.Words]) -> None:
    """What every missing site has in common with those there, from the shares of its key."""
    for missing in opening.missing:
        shares = {holder: told.missing.get(missing, "") for holder, told in opening.told.items()}
        near = opening.near(missing)
        for combined, _ in _combined(shares, threshold=threshold_of(len(opening.sharing(missing)) + 1)):
            private = ec.derive_private_key(int.from_bytes(combined, "big"), ec.SECP384R1())
            public = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()
            if public == opening.keys[missing]:
                for site in set(near) & set(opening.receipts):
                    other = ec.EllipticCurvePublicKey.from_encoded_point(
                        ec.SECP384R1(), bytes.fromhex(opening.keys[site])
                    )
                    found.secrets[missing, site] = generate_shared_key(private, other)
                break
        else:
            reason = f"too few sites that could help to take off the masks shared with {missing} answered"
            found.refused.update(dict.fromkeys(blocks, reason))


def _combined(shares: Mapping[str, str], *, threshold: int) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Secrets put together from groups of shares, with the group."""
    holders = sorted(holder for holder, share in shares.items() if share)
    for group in itertools.islice(itertools.combinations(holders, threshold), _TRIES):
        try:
            yield combine_shares([bytes.fromhex(shares[holder]) for holder in group]), group
        except (ValueError, IndexError):
            continue


def _name_odd_shares(
    found: _Found, shares: Mapping[str, str], used: tuple[str, ...], *, combined: bytes, of: str, threshold: int
) -> None:
    """Name the holders whose share, put in the place of one that is right, does not give the secret."""
    for holder in sorted(set(shares) - set(used)):
        group = {name: shares[name] for name in (*used[: threshold - 1], holder)}
        if shares[holder] and all(secret != combined for secret, _ in _combined(group, threshold=threshold)):
            found.faults[holder] = f"its share of the seed of {of} is not the one that it was given"


def _must_not_count(opening: Opening, found: _Found, block: str, seeds: Mapping[str, bytes]) -> bool:
    """Whether a site has masked the block otherwise than agreed: it is named, and the sum is worth nothing."""
    odd = set()
    for site, seed in seeds.items():
        words = {}
        for other in opening.near(site):
            if other in opening.missing:
                if (secret := found.secrets.get((other, site))) is None:
                    continue
                words[other] = check_word(pair_seed(secret, opening.receipts[site].of, block=block, use="check"))
            elif site in opening.told:
                words[other] = opening.told[site].checks.get(block, {}).get(other, 0)
            elif other in opening.told:
                words[other] = opening.told[other].checks.get(block, {}).get(site, 0)
        left = opening.receipts[site].checks[block] - check_word(seed) - signed_total(site, words)
        if left % (1 << 64) != 1:
            odd.add(site)
    for one, other in itertools.combinations(sorted(opening.told), 2):
        pair = [opening.told[a].checks.get(block, {}).get(b) for a, b in ((one, other), (other, one))]
        if other in opening.near(one) and pair[0] != pair[1] and not odd & {one, other}:
            odd |= {one, other}
    for site in odd:
        found.faults[site] = "its sums are not masked as agreed with the others"
    if odd:
        found.refused[block] = f"masked otherwise than agreed by {', '.join(sorted(odd))}"
    return bool(odd)
