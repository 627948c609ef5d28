"""The stages of secure aggregation that come without sums: a channel, keys, and opening (`protocol.secure`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, generate_key_pairs, private_key_to_bytes

from fedage.client.consent.accounts.sum_keys import Judged, SumKeyStore
from fedage.client.inbox.gate import Answer, Work
from fedage.common.privacy.ring import digest_of
from fedage.common.privacy.site_sets import SiteSet
from fedage.common.protocol.heads import key_to_hex
from fedage.common.protocol.messages import RequestRefused
from fedage.common.protocol.secure import (
    UPDATE,
    AskChannel,
    AskKeys,
    AskOpen,
    Channel,
    Receipt,
    Signed,
    SumKeys,
    TellKeys,
    TellOpen,
    check_word,
    digest_of_all,
    join_part,
    neighbours,
    pair_seed,
    part_of,
    set_of,
    stage_of,
    threshold_of,
)

SCALAR_BYTES = 48
"""Of a private key on P-384: what is shared of it."""

S = TypeVar("S", bound=Signed)


def answer_stage(work: Work) -> Answer:
    """The answer to a message of secure aggregation alone.

    Raises
    ------
    RequestRefused
        Rule `secure-aggregation`, or `site-key` for words that are not of the site they name.
    """
    if not work.campaign.privacy.secure_aggregation:
        raise RequestRefused("secure-aggregation", "the approved campaign file hides no sums")
    stages: dict[str, Callable[[Work, SumKeyStore], Answer]] = {"channels": _channel, "keys": _keys, "open": _open}
    stage = stages.get(stage_of(work.payload))
    if stage is None:
        raise RequestRefused("secure-aggregation", "the message is of no stage that a site knows")
    store = account_of(work)
    try:
        return stage(work, store)
    finally:
        store.close()


def _channel(work: Work, store: SumKeyStore) -> Answer:
    asked = part_of(work.payload, AskChannel)
    private, public = generate_key_pairs()
    channel = signed_words(work, Channel, epoch=asked.epoch, key=_text(public))
    store.begin(run_key(work), asked.epoch, private=private_key_to_bytes(private))
    return Answer(info={}, payload=join_part(channel))


def _keys(work: Work, store: SumKeyStore) -> Answer:
    asked = part_of(work.payload, AskKeys)
    channels, run = members_of(work, asked.channels), run_key(work)
    own = channels[work.site.name]
    epoch = store.epoch(run, own.epoch)
    if public_key(private_key(epoch.private)) != own.key:
        raise RequestRefused("site-key", "the key sent as this site's is another one than it gave")
    pairs = [generate_key_pairs() for _ in range(asked.count)]
    digest = digest_of_all(asked.channels)
    publics = tuple(_text(public) for _, public in pairs)
    keys = signed_words(work, SumKeys, epoch=own.epoch, channels=digest, keys=publics)
    told = {"digest": digest, "keys": {site: each.key for site, each in channels.items()}}
    private_keys = [private_key_to_bytes(private) for private, _ in pairs]
    store.keep_keys(run, own.epoch, told=json.dumps(told), private=private_keys)
    sealing = Channels.of(work, own.epoch, told=told, private=private_key(epoch.private))
    holders = sharing_with(neighbours(work.site.name, sorted(channels), seed=digest), work.site.name)
    threshold = threshold_of(len(holders))
    shares = [
        create_shares(private.private_numbers().private_value.to_bytes(SCALAR_BYTES, "big"), threshold, len(holders))
        for private, _ in pairs
    ]
    bodies = {site: {str(n): parts[k].hex() for n, parts in enumerate(shares)} for k, site in enumerate(holders)}
    tokens = {site: sealing.sealed("keys", to=site, body=body) for site, body in bodies.items()}
    return Answer(info={}, payload=join_part(TellKeys(keys=keys, shares=tokens)))


def _open(work: Work, store: SumKeyStore) -> Answer:
    asked, name = part_of(work.payload, AskOpen), work.site.name
    receipts, run = members_of(work, asked.receipts), run_key(work)
    own = receipts[name]
    private, masked = store.masked(run, own.epoch, own.number)
    if own != Receipt.model_validate_json(masked["receipt"]):
        raise RequestRefused("site-key", "the receipt sent as this site's is another one than it gave")
    for receipt in asked.receipts:
        if receipt.of != own.of:
            raise RequestRefused("secure-aggregation", f"{receipt.site} has masked for another sum, or by other keys")
        if receipt.contributes.keys() != own.contributes.keys():
            raise RequestRefused("secure-aggregation", f"{receipt.site} has masked other blocks than this site")
    near: Mapping[str, str] = masked["keys"]
    if not set(asked.shares) <= set(receipts) or set(asked.missing) & set(receipts):
        raise RequestRefused("secure-aggregation", "of a site either seeds or a key are opened, never both")
    privacy = work.campaign.privacy
    noised, minimum = privacy.mode == "sample", privacy.minimum_sites
    sets = {block: set_of(block, asked.receipts, noised=noised, minimum=minimum) for block in own.contributes}
    refused = {
        block: f"fewer than {each.minimum} sites contribute to it"
        for block, each in sets.items()
        if len(each.sites) < each.minimum
    }
    channels = Channels.kept(work, store, own.epoch)
    shares, missing, unreadable = dict[str, Mapping[str, str]](), dict[str, str](), set[str]()
    for site, token in asked.shares.items():
        shares[site] = channels.opened(f"seeds of {own.number}", sender=site, token=token, unreadable=unreadable)
    for site, token in asked.missing.items():
        told = channels.opened("keys", sender=site, token=token, unreadable=unreadable)
        missing[site] = told.get(str(own.number), "")
    if unreadable:  # nothing is told, so that the same may be opened over the others
        names = ", ".join(sorted(unreadable))
        why = dict.fromkeys(own.contributes, f"the shares that {names} sent to {name} cannot be read")
        declined = TellOpen(shares={}, missing={}, checks={}, refused=why, unreadable=tuple(sorted(unreadable)))
        return Answer(info={}, payload=join_part(declined))
    families: Mapping[str, Sequence[str]] = masked["families"]
    everybody = set_of("", asked.receipts, noised=False, minimum=minimum)
    judged = {
        # Of updates with noise no account is kept: each of them alone may be seen.
        block: [
            *(Judged(family, sets[block], is_noted=not (noised and block == UPDATE)) for family in of),
            *(Judged(family, everybody) for family in masked["answering"].get(block, ())),
        ]
        for block, of in families.items()
        if of and block not in refused
    }
    alone = store.open_once(
        run,
        own.epoch,
        own.number,
        opening=digest_of_all(asked.receipts),
        families=judged,
        campaign=work.request.digest,
    )
    refused |= {block: other_sites_text(work, sites) for block, sites in alone.items()}
    opened = [block for block in own.contributes if block not in refused]
    shared = {site: generate_shared_key(private_key(private), point(key)) for site, key in near.items()}
    checks = {}
    for block in opened:
        checks[block] = {
            site: check_word(pair_seed(secret, own.of, block=block, use="check"))
            for site, secret in shared.items()
            if site in receipts
        }
    return Answer(
        info={},
        payload=join_part(
            TellOpen(
                shares={
                    site: {block: parts[block] for block in opened if block in parts} for site, parts in shares.items()
                },
                missing=missing,
                checks=checks,
                refused=refused,
                own={block: seed for block, seed in masked["own"].items() if block in opened and families[block]},
                results={
                    block: tuple(sums)
                    for block, sums in masked["results"].items()
                    if block in opened and _may_tell(sets[block], block, asked.receipts)
                },
            )
        ),
    )


def _may_tell(sites: SiteSet, block: str, receipts: Sequence[Receipt]) -> bool:
    """Whether this site may tell its own results: the others' would follow if they were too few."""
    silent = sum(receipt.contributes[block] and not receipt.tells for receipt in receipts)
    return silent == 0 or silent >= sites.minimum


def other_sites_text(work: Work, alone: frozenset[str]) -> str:
    """Why a sum is not opened; of sites that the campaign file does not name nothing is said."""
    known = alone if work.site.rules is None else {*work.campaign.privacy.site_keys, *work.campaign.campaign.sites}
    names = sorted(alone & known) or ["other sites"]
    whose = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return (
        f"sums of this kind were opened before over other sites, and by subtraction those of {whose} would be seen. "
        "Run it over the same sites as then; a hospital may agree to be left out (may_be_left_out in policy.toml), "
        "or the others approve it with --accept-other-sites"
    )


def run_key(work: Work) -> str:
    """What a run is called in the site's file."""
    return f"{work.request.digest[:64]} {work.request.run}"


def account_of(work: Work) -> SumKeyStore:
    """The site's file: a deployed one's is of its home, over all campaigns."""
    rules = work.site.rules
    return SumKeyStore(work.site.state_dir(work.request.digest) if rules is None else rules.home)


def signed_words(work: Work, kind: type[S], *, epoch: str, **told_fields: Any) -> S:
    """Words of a kind, of this site in this run, with its signature; in simulation without."""
    rules, request = work.site.rules, work.request
    told = kind(site=work.site.name, digest=request.digest, run=request.run, epoch=epoch, **told_fields)
    if rules is None:
        return told
    return told.model_copy(update={"signature": rules.audit.sign(told.signing_bytes()).hex()})


def members_of(work: Work, told: Sequence[S]) -> dict[str, S]:
    """What each site says of itself, by site, this one among them.

    Raises
    ------
    RequestRefused
        Rule `site-key` for words without the signature of the site that the campaign file names; `minimum-sites` for
        too few; `secure-aggregation` for words of another run, or two of a site.
    """
    found = {each.site: each for each in told}
    privacy, rules = work.campaign.privacy, work.site.rules
    if len(found) != len(told) or work.site.name not in found:
        raise RequestRefused("secure-aggregation", "each site speaks once for itself, this one among them")
    if len(found) < privacy.minimum_sites:
        raise RequestRefused(
            "minimum-sites",
            f"a sum of fewer than privacy.minimum_sites = {privacy.minimum_sites} sites is neither masked nor opened",
        )
    epoch = found[work.site.name].epoch
    if any((e.digest, e.run, e.epoch) != (work.request.digest, work.request.run, epoch) for e in told):
        raise RequestRefused("secure-aggregation", "keys of another campaign, run or setting-up")
    if rules is None:
        return found
    must_name_this_site(work)
    for each in told:
        key = privacy.site_keys.get(each.site)
        if key is None or not each.is_signed_by(key):
            raise RequestRefused(
                "site-key",
                f"what is sent as {each.site}'s is not signed by the key that the campaign file has for it "
                "(privacy.site_keys): somebody on the way, or the coordinator, has put another key in its place",
            )
    return found


def must_name_this_site(work: Work) -> None:
    """Refuse (rule `site-key`) a file by which no other site would know this one; in simulation none has a key."""
    rules = work.site.rules
    if rules is not None and work.campaign.privacy.site_keys.get(work.site.name) != key_to_hex(rules.audit.public_key):
        raise RequestRefused(
            "site-key",
            "privacy.site_keys of the campaign file has another key for this site than fedage site audit key prints, "
            "or none; the coordinator corrects the file",
        )


@dataclass
class Channels:
    """What a site may say to others alone, in one setting-up.

    Parameters
    ----------
    own
        The site.
    epoch
        The setting-up.
    digest
        Of all sites' channels.
    keys
        By site, the key that the two of them have.
    """

    own: str
    epoch: str
    digest: str
    keys: Mapping[str, bytes]

    @classmethod
    def kept(cls, work: Work, store: SumKeyStore, epoch: str) -> Channels:
        """Those of a setting-up. Raises `RequestRefused` if there are none yet."""
        found = store.epoch(run_key(work), epoch)
        if found.told is None:
            raise RequestRefused("secure-aggregation", "keys of another setting-up")
        return cls.of(work, epoch, told=json.loads(found.told), private=private_key(found.private))

    @classmethod
    def of(cls, work: Work, epoch: str, *, told: Mapping[str, Any], private: ec.EllipticCurvePrivateKey) -> Channels:
        """Those with a site's private key."""
        keys = {site: generate_shared_key(private, point(key)) for site, key in told["keys"].items()}
        return cls(work.site.name, epoch, told["digest"], keys)

    def sealed(self, what: str, *, to: str, body: Mapping[str, str]) -> str:
        """What is for one site alone; it cannot be passed off as anything else, such as the seeds of another sum."""
        envelope = {"of": digest_of(what, self.epoch, self.own, to), "body": dict(body)}
        return encrypt(self.keys[to], json.dumps(envelope).encode()).decode()

    def opened(self, what: str, *, sender: str, token: str, unreadable: set[str]) -> dict[str, str]:
        """What a site sent to this one alone; if it is not that the sender joins `unreadable`."""
        try:
            opened = json.loads(decrypt(self.keys[sender], token.encode()))
            if opened["of"] != digest_of(what, self.epoch, sender, self.own):
                raise ValueError
            return {str(name): str(part) for name, part in opened["body"].items()}
        except (InvalidToken, ValueError, KeyError, TypeError, AttributeError):
            unreadable.add(sender)
            return {}


def sharing_with(near: Sequence[str], own: str) -> list[str]:
    """Who holds shares of a site's secrets, in the order of the shares: its neighbours and itself."""
    return sorted({*near, own})


def private_key(content: bytes) -> ec.EllipticCurvePrivateKey:
    """A private key as the site keeps it."""
    return bytes_to_private_key(content)


def public_key(private: ec.EllipticCurvePrivateKey) -> str:
    """The public half as it is told."""
    return _text(private.public_key())


def _text(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()


def point(text: str) -> ec.EllipticCurvePublicKey:
    """A public key as it was told. Raises `RequestRefused` for none."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), bytes.fromhex(text))
    except ValueError:
        raise RequestRefused("site-key", "a key that is no point of the curve") from None
