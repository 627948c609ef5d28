"""Secure against plain aggregation of model updates: bytes and seconds of compute, by size of the model and sites.

    PYTHONPATH=. python tests/bench/bench_secure.py [--quick]

Plain: a site's update as float32, and the coordinator's weighted mean of them in float64. Secure: a site's keys and
their shares (an eighth of a set-up for eight sums), its weighted update in the ring with its masks, the shares of its
seed, and those of the others that it reads to open the sum; the coordinator's sum of the masked words, the seeds put
together from shares, the masks taken off, and the mean. With `left` sites of which a key is opened in place of the
update. Network, disk and training are not in it. Seconds are of the processor, one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from fedage.client.inbox.secure_stages import SCALAR_BYTES
from fedage.common.networks.masked_update import mean_update, update_rows
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits
from fedage.common.privacy import ring
from fedage.common.protocol.secure import KEYS_AT_ONCE, SumId, own_seed, pair_seed, threshold_of

LIMITS = StepLimits(step_norm=1.0, path_norm=10.0)
SIZES_MB, SITES = (1, 10, 100), (3, 10, 30)


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    into[name] = into.get(name, 0.0) + time.process_time() - began


def once(*, megabytes: int, sites: int, left: int = 0, timed_sites: int = 2) -> dict[str, float]:
    """Seconds of one site and of the coordinator, and bytes of one site's answers, plain and secure.

    Of a coordinator with many sites only as many vectors are made as are timed; it works on one after another.
    """
    size = megabytes * 250_000
    rng = np.random.default_rng(0)
    model = {"w": np.zeros(size, dtype=np.float32)}
    change = {"w": (rng.standard_normal(size, dtype=np.float32) / np.float32(2 * size**0.5))}
    roles = ArrayRoles(learnt=("w",))
    found: dict[str, float] = {"plain_bytes": 4.0 * size, "secure_bytes": 8.0 * (size + 2)}
    with timed(found, "plain_coordinator_s"):
        accumulator = np.zeros(size)
        for _ in range(timed_sites):
            accumulator += 100 * change["w"].astype(np.float64)
        accumulator /= 100 * timed_sites
    found["plain_coordinator_s"] *= sites / timed_sites

    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(sites)]
    publics = [key.public_key() for key in keys]
    of, threshold = SumId("0" * 64, 0, "1" * 64), threshold_of(sites)
    # Of one site, which is among all others.
    channels = [generate_shared_key(keys[0], public) for public in publics]
    with timed(found, "secure_setting_s"):
        for _ in range(KEYS_AT_ONCE):
            private, _public = generate_key_pairs()
            secret = private.private_numbers().private_value.to_bytes(SCALAR_BYTES, "big")
            create_shares(secret, threshold, sites)
        tokens = [encrypt(channel, bytes(2 * SCALAR_BYTES * KEYS_AT_ONCE)) for channel in channels]
    found["secure_setting_s"] /= KEYS_AT_ONCE - 1
    with timed(found, "secure_site_s"):
        rows = update_rows(model, change, roles, limits=LIMITS, weight=100, loss=1.0, sites=sites)
        shared, own_part = rng.bytes(ring.SEED_BYTES), rng.bytes(ring.SEED_BYTES).hex()
        own = own_seed(shared, own_part)
        ring.add_mask(rows, own)
        for other in range(1, sites):
            between = generate_shared_key(keys[0], publics[other])
            ring.add_mask(rows, pair_seed(between, of, block="update", use="mask"))
        shares = create_shares(shared, threshold, sites)
        told = [encrypt(channel, share) for channel, share in zip(channels, shares, strict=True)]
        for channel, token in zip(channels, told, strict=True):
            decrypt(channel, token)
    found["secure_site_s"] += found["secure_setting_s"]
    found["secure_bytes"] += sum(map(len, told)) + sum(map(len, tokens)) / (KEYS_AT_ONCE - 1)
    there = sites - left
    with timed(found, "secure_coordinator_s"):
        total = rows.copy()
        for _ in range(timed_sites):
            ring.add(total, rows)
            seed = own_seed(combine_shares(shares[:threshold]), own_part)
            ring.add_mask(total, seed, sign=-1)
    found["secure_coordinator_s"] *= there / timed_sites
    if left:  # of each site that left, the masks that it shares with those there
        with timed(found, "left_s"):
            scalar = keys[0].private_numbers().private_value.to_bytes(SCALAR_BYTES, "big")
            combine_shares(create_shares(scalar, threshold, sites)[:threshold])
            for other in range(1, 1 + timed_sites):
                between = generate_shared_key(keys[0], publics[other])
                ring.add_mask(total, pair_seed(between, of, block="update", use="mask"), sign=-1)
        found["secure_coordinator_s"] += found["left_s"] * left * there / timed_sites
    plain = update_rows(model, change, roles, limits=LIMITS, weight=100, loss=1.0, sites=sites)
    with timed(found, "secure_coordinator_s"):
        mean_update(plain, model, roles, limits=LIMITS, sites=sites)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 and 10 MB at 3 and 10 sites only")
    parser.add_argument("--left", type=int, default=0, help="sites that leave with the masks of a round under way")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load {load:.1f}; a sum takes 2 messages a site, and 2 more for each {KEYS_AT_ONCE - 1} sums")
    print("  MB  sites   bytes a site: plain   secure  ratio   s: site  coordinator (plain)  site + coordinator")
    for megabytes in SIZES_MB[:2] if options.quick else SIZES_MB:
        for sites in SITES[:2] if options.quick else SITES:
            times = [once(megabytes=megabytes, sites=sites, left=options.left) for _ in range(3)]
            best = min(times, key=lambda one: one["secure_site_s"] + one["secure_coordinator_s"])
            print(
                f"{megabytes:4d} {sites:6d} {best['plain_bytes'] / 1e6:21.1f} {best['secure_bytes'] / 1e6:8.1f} "
                f"{best['secure_bytes'] / best['plain_bytes']:6.2f} {best['secure_site_s']:9.3f} "
                f"{best['secure_coordinator_s']:12.3f} ({best['plain_coordinator_s']:.3f}) "
                f"{best['secure_site_s'] + best['secure_coordinator_s']:12.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
