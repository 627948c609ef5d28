"""Secure against plain aggregation of model updates: bytes and seconds of compute, by size of the model and sites.

    PYTHONPATH=. python tests/bench/bench_secure.py [--quick]

Plain: a site's update as float32, and the coordinator's weighted mean of them in float64. Secure: a site's weighted
update in the ring with its masks; the coordinator's sum of the masked words, its opening, and the mean from it. Keys,
shares and signatures are in it; network, disk and the training are not. Seconds are of the processor, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key

from fedage.common.networks.masked_update import mean_update, update_rows
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits
from fedage.common.privacy import ring
from fedage.common.protocol.secure import SumId, pair_seed, threshold_of

LIMITS = StepLimits(step_norm=1.0, path_norm=10.0)
SIZES_MB, SITES = (1, 10, 100), (3, 10, 30)


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    into[name] = into.get(name, 0.0) + time.process_time() - began


def once(*, megabytes: int, sites: int, timed_sites: int = 2) -> dict[str, float]:
    """Seconds of one site and of the coordinator, and bytes of one site's answer, plain and secure.

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
    with timed(found, "secure_site_s"):
        rows = update_rows(model, change, roles, limits=LIMITS, weight=100, loss=1.0, sites=sites)
        own = rng.bytes(ring.SEED_BYTES)
        ring.add_mask(rows, own)
        for other in range(1, sites):
            shared = generate_shared_key(keys[0], publics[other])
            ring.add_mask(rows, pair_seed(shared, of, block="update", use="mask"))
            encrypt(shared, own)
        shares = create_shares(own, threshold, sites)
    found["secure_bytes"] += sum(map(len, shares)) * 3
    with timed(found, "secure_coordinator_s"):
        total = rows.copy()
        for _ in range(timed_sites):
            ring.add(total, rows)
            ring.add_mask(total, own, sign=-1)
    found["secure_coordinator_s"] *= sites / timed_sites
    plain = update_rows(model, change, roles, limits=LIMITS, weight=100, loss=1.0, sites=sites)
    with timed(found, "secure_coordinator_s"):
        mean_update(plain, model, roles, limits=LIMITS, sites=sites)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 and 10 MB at 3 and 10 sites only")
    quick = parser.parse_args().quick
    print("  MB  sites   bytes a site: plain   secure  ratio   s: site  coordinator (plain)  all but network")
    for megabytes in SIZES_MB[:2] if quick else SIZES_MB:
        for sites in SITES[:2] if quick else SITES:
            best = min((once(megabytes=megabytes, sites=sites) for _ in range(3)), key=lambda one: one["secure_site_s"])
            print(
                f"{megabytes:4d} {sites:6d} {best['plain_bytes'] / 1e6:21.1f} {best['secure_bytes'] / 1e6:8.1f} "
                f"{best['secure_bytes'] / best['plain_bytes']:6.2f} {best['secure_site_s']:9.3f} "
                f"{best['secure_coordinator_s']:12.3f} ({best['plain_coordinator_s']:.3f}) "
                f"{best['secure_site_s'] + best['secure_coordinator_s']:12.3f}"
            )


if __name__ == "__main__":
    main()
