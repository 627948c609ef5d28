"""A site's answer with masks over all its sums: what leaves where a campaign hides them from the coordinator.

Attack: whoever reads an answer (the coordinator, its database, its disk) learns of one hospital. Rule: of an answer
leave words of a ring, uniform to whoever lacks the seeds, and the reasons for what is withheld; weight, loss and time
of a training are among the masked words or not told. What the coordinator checks of a bare answer is checked here
before it is masked: finite, within the bounds of the layout for as many patients as the site has, within the step that
the file allows. Residual risk: that a site takes part, which steps it contributes to, and its reasons are not hidden; a
hostile site's figures within the bounds cannot be told from true ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key

from fedage.client.compute.contribute import BIAS_LINE
from fedage.client.compute.model import exact_sums_of
from fedage.client.disclosure.guard import Withheld
from fedage.client.inbox.gate import Answer, Work
from fedage.client.inbox.hidden_families import families_of, family_of_analyses, family_of_training
from fedage.client.inbox.secure_stages import (
    Channels,
    account_of,
    members_of,
    must_name_this_site,
    other_sites_text,
    point,
    private_key,
    public_key,
    run_key,
    sharing_with,
    signed_words,
)
from fedage.common.analyses.base import IterateRefused
from fedage.common.analyses.plan import registered
from fedage.common.estimators.configure import step_limits
from fedage.common.networks.masked_update import update_rows
from fedage.common.privacy import ring
from fedage.common.privacy.masked_statistic import statistic_rows
from fedage.common.privacy.ring import OutOfRange, digest_of
from fedage.common.privacy.site_sets import SiteSet
from fedage.common.protocol.messages import (
    DESCRIBE,
    SECURE,
    TRAIN,
    RequestRefused,
    model_of,
    payload_digest,
    split_payload,
)
from fedage.common.protocol.secure import (
    MASKED,
    UPDATE,
    AskMasked,
    Receipt,
    SumId,
    TellMasked,
    check_word,
    digest_of_all,
    join_part,
    neighbours,
    own_seed,
    pair_seed,
    part_of,
    question_of,
    signed_total,
    threshold_of,
)
from fedage.common.statistics.statistic import FloatArray
from fedage.common.statistics.usable import why_unusable

_KEPT_OF_PRIVACY = ("epsilon", "delta", "accountant")
"""What an answer with masked sums says of its privacy; noise and sampling follow from how many patients there are."""


@dataclass(frozen=True)
class _Block:
    """A block to be masked: its rows (v, w), its families in the account (none for zeros), its bare sums.

    `answering` are families of which all sites that answer are the set, with or without sums of their own.
    """

    name: str
    rows: ring.Words
    families: tuple[str, ...] = ()
    answering: tuple[str, ...] = ()
    sums: FloatArray | None = None


def hidden(handler: Callable[[Work], Answer]) -> Callable[[Work], Answer]:
    """The handler, with masks over the sums of what it answers where the campaign says so."""

    def answer(work: Work) -> Answer:
        if not work.campaign.privacy.secure_aggregation or work.request.kind == SECURE:
            return handler(work)
        must_name_this_site(work)
        if work.request.kind == DESCRIBE:
            return handler(work)
        if needs_masks(work):  # refused before anything is computed
            members = members_of(work, part_of(work.payload, AskMasked).keys)
            if work.request.kind == TRAIN:
                _must_fit(work, members)
        return mask_answer(work, handler(work))

    return answer


def mask_answer(work: Work, answer: Answer) -> Answer:
    """The answer with masks over all its arrays.

    Raises
    ------
    RequestRefused
        Rule `secure-aggregation` or `site-key`.
    Withheld
        Rule `sum-bounds` for an update that cannot be masked.
    """
    if not needs_masks(work):
        return replace(answer, info={"withheld": answer.withheld}, payload={})
    asked = part_of(work.payload, AskMasked)
    signed = members_of(work, asked.keys)
    own = signed[work.site.name]
    store, run = account_of(work), run_key(work)
    try:
        private, digest = private_key(store.private(run, own.epoch, asked.number)), digest_of_all(asked.keys)
        if asked.number >= len(own.keys) or public_key(private) != own.keys[asked.number]:
            raise RequestRefused("site-key", "the key sent as this site's is another one than it gave")
        channels = Channels.kept(work, store, own.epoch)
        if channels.digest != own.channels:
            raise RequestRefused("secure-aggregation", "keys of another setting-up")
        question = question_of(
            work.request.kind, round_number=work.request.round, fold=work.request.fold, payload=work.payload
        )
        of = SumId(digest, asked.number, question)
        withheld = dict(answer.withheld)
        disclosure = None if work.site.rules is None else work.site.rules.policy.current().disclosure
        tells = work.campaign.privacy.results_by_site and (disclosure is None or disclosure.tells_own_results)
        blocks = list(_blocks(work, answer, withheld, sites=len(signed)))
        near = [site for site in neighbours(work.site.name, sorted(channels.keys), seed=own.channels) if site in signed]
        shared = {site: generate_shared_key(private, point(signed[site].keys[asked.number])) for site in near}
        seeds = {block.name: secrets.token_bytes(ring.SEED_BYTES) for block in blocks}
        # Zeros are opened without their site.
        own_parts = {block.name: secrets.token_hex(ring.SEED_BYTES) if block.families else "" for block in blocks}
        checks: dict[str, int] = {}
        for block in blocks:
            seed = own_seed(seeds[block.name], own_parts[block.name])
            ring.add_mask(block.rows, seed)
            words = {}
            for site, secret in shared.items():
                sign = 1 if work.site.name < site else -1
                ring.add_mask(block.rows, pair_seed(secret, of, block=block.name, use="mask"), sign=sign)
                words[site] = check_word(pair_seed(secret, of, block=block.name, use="check"))
            own_word = 1 + check_word(seed) + signed_total(work.site.name, words)
            checks[block.name] = own_word % (1 << 64)
        receipt = signed_words(
            work,
            Receipt,
            epoch=own.epoch,
            number=asked.number,
            keys=digest,
            question=question,
            contributes={block.name: bool(block.families) for block in blocks},
            checks=checks,
            seeds={name: digest_of(shared_part.hex()) for name, shared_part in seeds.items()},
            may_be_left_out=disclosure is not None and disclosure.may_be_left_out,
            tells=tells,
        )
        holders = sharing_with(near, work.site.name)
        parts = {name: create_shares(seed, threshold_of(len(holders)), len(holders)) for name, seed in seeds.items()}
        told = {
            site: channels.sealed(
                f"seeds of {asked.number}", to=site, body={name: parts[name][k].hex() for name in parts}
            )
            for k, site in enumerate(holders)
        }
        store.mask(
            run,
            own.epoch,
            asked.number,
            masked={
                "receipt": receipt.model_dump_json(),
                "keys": {site: signed[site].keys[asked.number] for site in near},
                "families": {block.name: block.families for block in blocks},
                "answering": {block.name: block.answering for block in blocks},
                "own": own_parts,
                "results": {block.name: block.sums.tolist() for block in blocks if tells and block.sums is not None},
            },
        )
    finally:
        store.close()
    return replace(
        answer,
        info=_info(answer, withheld),
        payload={
            **{MASKED + block.name: block.rows for block in blocks},
            **join_part(TellMasked(receipt=receipt, shares=told)),
        },
        steps=tuple(block.name for block in blocks if block.families and block.name != UPDATE),
        withheld=withheld,
    )


def _info(answer: Answer, withheld: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What is told beside masked sums: what is withheld and why, and what the update has cost."""
    told: dict[str, Any] = {"withheld": withheld}
    if (privacy := answer.info.get("privacy")) is not None:
        told["privacy"] = {key: privacy[key] for key in _KEPT_OF_PRIVACY}
    return told


def needs_masks(work: Work) -> bool:
    """Whether a request asks for sums at all; a prediction alone tells nothing but that it was done."""
    return work.request.kind == TRAIN or bool(set(split_payload(work.payload)[1]) - {BIAS_LINE})


def _blocks(work: Work, answer: Answer, withheld: dict[str, Mapping[str, str]], *, sites: int) -> Iterator[_Block]:
    """The blocks that the request implies, in the order of their names; zeros where the site withholds."""
    weights, iterates = split_payload(work.payload)
    if work.request.kind == TRAIN:
        limits, training = step_limits(work.campaign), work.campaign.training
        if answer.roles is None or limits is None or training is None:
            raise RequestRefused("secure-aggregation", "an update of a model without bounds cannot be masked")
        # Never more than were approved, whatever the training says.
        patients = min(int(answer.info["n"]), work.site_cohort.cohort.n)
        try:
            rows = update_rows(
                weights,
                model_of(answer.payload),
                answer.roles,
                limits=limits,
                weight=1 if training.weighting == "equal" else patients,
                loss=float(answer.info["loss"] or 0.0),  # a private training tells none
                sites=sites,
            )
        except OutOfRange as refused:
            raise Withheld("sum-bounds", f"this site's update: {refused}") from None
        # Beside the family what this site has in the sum, before masks: another name does not make it another.
        yield _Block(UPDATE, rows, (family_of_training(work), digest_of(UPDATE, payload_digest({"": rows}))))
    steps = {**registered(work.campaign), **exact_sums_of(work.campaign, work.site_cohort)}
    for step in sorted(set(iterates) & set(steps)):
        try:
            steps[step].check(iterates[step])
            layout = steps[step].layout(iterates[step])
        except IterateRefused:
            continue  # withheld with the reason already; no site has a block of it
        sums, families, own = np.zeros(layout.size), tuple[str, ...](), None
        if (found := answer.payload.get(step)) is not None:
            why = why_unusable(layout, found, patients=work.site_cohort.cohort.n)
            if why is None:
                sums = found
                # Not by the step's name, which another file may change.
                of = [type(steps[step]).__name__, payload_digest(iterates[step]), payload_digest({"": found})]
                if not iterates[step]:
                    # Yes or no is the same of many columns: of which, as other sites may have to agree on others.
                    of += getattr(getattr(steps[step], "analysis", None), "reducible", ())
                families = (digest_of(*of), *families_of(work, steps[step], iterates[step]))
                own = found if steps[step].per_site and not getattr(steps[step], "of_total", False) else None
            else:
                withheld[step] = {"rule": why[1], "detail": why[0]}
        # Of a round those answer that train; of analyses everybody, so that two of them are over the same sites.
        answering = () if work.request.kind == TRAIN else (family_of_analyses(work, steps[step]),)
        yield _Block(step, statistic_rows(layout, sums, sites=sites), families, answering, own)


def _must_fit(work: Work, members: Collection[str]) -> None:
    """Refuse (rule `site-sets`) a training over sites of which no sum could be opened, before it is computed."""
    sites, privacy = frozenset(members), work.campaign.privacy
    now = SiteSet(sites=sites, agreed=sites if privacy.mode == "sample" else frozenset(), minimum=privacy.minimum_sites)
    store = account_of(work)
    try:
        alone = store.must_fit(family_of_training(work), now, campaign=work.request.digest)
    finally:
        store.close()
    if alone:
        raise RequestRefused("site-sets", other_sites_text(work, alone))
