"""A campaign in sentences that a hospital's administrator can read before approving its digest."""

from __future__ import annotations

from fedage.common.campaign.fields import LIKELY_SITE
from fedage.common.campaign.types import USUAL_AGE_STEP_YEARS, Campaign, CoxModel, Groups, Survival
from fedage.common.presentation.wording import listed


def campaign_sentences(campaign: Campaign) -> list[str]:
    """What is computed, what leaves the site, and which privacy, one sentence an item.

    Who asks is not in the file: it is whoever signs the requests, and is told beside these sentences.
    """
    return [
        f"Campaign {campaign.campaign.name} asks: {campaign.campaign.purpose.rstrip('.')}.",
        _sites(campaign),
        _cohort(campaign),
        *_training(campaign),
        *_given(campaign),
        *_parts(campaign),
        *_analyses(campaign),
        *_leaves(campaign),
        *_privacy(campaign),
        f"Approving means approving the file with digest {campaign.digest}, and nothing else.",
    ]


def _given(campaign: Campaign) -> list[str]:
    """Weights that come from outside the campaign."""
    if campaign.training is not None and campaign.training.start_bundle is not None and not campaign.validates:
        return [
            f"The model begins with that of the bundle with the SHA-256 {campaign.training.start_bundle}, and with no "
            "other: ask who made it, as its maker chooses what the first model looks at, and ask what it was trained "
            "on. Where it was trained on the same patients, those who are held out now were not, and errors come out "
            "too small."
        ]
    if campaign.estimator is None or campaign.table is not None:
        return []
    # Imported here: estimators read campaign files in turn.
    from fedage.common import estimators

    digest = estimators.make(campaign.estimator.name, campaign.estimator.options).given_sha256
    if not digest:
        return []
    return [
        f"The model begins with weights from outside the campaign, of the digest {digest}: ask what they were trained "
        "on, as whoever makes them may choose what the model looks at."
    ]


def _sites(campaign: Campaign) -> str:
    sites = campaign.campaign.sites
    if not sites:
        return "Any site that the coordinator has admitted may take part."
    return f"The sites expected are {listed(sites)}; {campaign.quorum} must answer for a step to count."


def limits_off_the_grid(campaign: Campaign) -> str:
    """Which age limits a site with the default policy refuses, in a sentence; empty if none."""
    limits = {"age_min_years": campaign.cohort.age_min_years, "age_max_years": campaign.cohort.age_max_years}
    odd = [f"cohort.{name} = {years:g}" for name, years in limits.items() if years % USUAL_AGE_STEP_YEARS]
    if not odd:
        return ""
    return (
        f"{listed(odd)}: sites take whole multiples of {USUAL_AGE_STEP_YEARS:g} years unless their policy says "
        "otherwise (disclosure.age_step_years in policy.toml), and refuse others with the rule age-limits; round "
        "the limits, or ask the sites first"
    )


def _cohort(campaign: Campaign) -> str:
    cohort = campaign.cohort
    if campaign.table is not None:
        images = "the tables"
    elif cohort.modality:
        images = f"{' or '.join(cohort.modality)} images"
    else:
        images = "the images its estimator reads"
    healthy = (
        "all of them count as healthy"
        if cohort.healthy == "all"
        else f"those with {cohort.healthy.column} = {cohort.healthy.equals:g} count as healthy"
    )
    ages = f"aged {cohort.age_min_years:g} to {cohort.age_max_years:g} years"
    return f"It uses {images} of patients {ages}; {healthy}."


def _training(campaign: Campaign) -> list[str]:
    estimator, training = campaign.estimator, campaign.training
    if estimator is None:
        return ["It trains nothing: it only analyses what the tables hold."]
    if estimator.bundle is not None:
        return [
            f"It trains nothing: it validates a model of the age estimator {estimator.name} that was made before, the "
            f"bundle with the SHA-256 {estimator.bundle}. Your site takes that model and no other."
        ]
    if campaign.validates:
        return [
            f"Your site trains nothing: other sites make a model of the age estimator {estimator.name}, and it is "
            "judged by your patients. Nothing of them goes into the model, its standardisation or a line that corrects "
            "others."
        ]
    whom = "healthy training patients" if campaign.cohort.train_on == "healthy" else "training patients"
    if training is None:
        return [
            *_beside_images(campaign),
            f"Your site sends the sums that the estimator {estimator.name} is computed from, over your {whom}.",
        ]
    return [
        *_beside_images(campaign),
        f"Your site trains the age estimator {estimator.name} on its own machine, together with the other "
        f"sites: {_count(training.rounds, 'round')}, each {_count(training.local_epochs, 'pass', 'passes')} over "
        f"your {whom} ({training.strategy}, batches of {training.batch_size}).",
        *_outcome(campaign),
        _steps(campaign),
    ]


def _outcome(campaign: Campaign) -> list[str]:
    """What is learnt beside age."""
    from fedage.common import estimators
    from fedage.common.estimators.outcomes import FineTuneOptions

    assert campaign.estimator is not None
    options = estimators.make(campaign.estimator.name, campaign.estimator.options).options
    if not isinstance(options, FineTuneOptions):
        return []
    columns = listed([target.column for target in options.targets_of_outcome])
    before = "that many rounds for age, and then as many" if options.age_first else "these rounds are"
    what = {"diagnosis": "a diagnosis", "risk": "the risk of an event by year", "score": "a score"}[options.outcome]
    return [
        f"The model learns {what} too, from your outcomes ({columns}): {before} for it. Where fewer than the minimum "
        "count have it, your patients teach it nothing."
    ]


def _beside_images(campaign: Campaign) -> list[str]:
    """Which columns an estimator on images reads of each patient."""
    # Imported here: estimators read campaign files in turn.
    from fedage.common import estimators
    from fedage.common.estimators.base import on_tables
    from fedage.common.estimators.table import FEATURE

    if campaign.estimator is None:
        return []
    estimator = estimators.make(campaign.estimator.name, campaign.estimator.options)
    if on_tables(estimator) or not estimator.row_columns:
        return []
    names = ["sex" if name == "is_male" else name.removeprefix(FEATURE) for name in estimator.row_columns]
    return [f"Beside the images it reads of each patient: {listed(names)}."]


def _steps(campaign: Campaign) -> str:
    # Imported here: estimators read campaign files in turn.
    from fedage.common.estimators.configure import step_limits

    limits = step_limits(campaign)
    if limits is None:
        return "Nothing is trained in rounds."
    return (
        "Your site works the first model out itself, from this file, and refuses another one; later models, and your "
        f"site's updates, move by a norm of at most {limits.step_norm:g} a round and {limits.path_norm:g} in a run."
    )


def _parts(campaign: Campaign) -> list[str]:
    if campaign.estimator is None:
        return []
    validation = campaign.validation
    if campaign.validates:
        return _parts_of_validation(campaign)
    if validation.fractions is None:
        final = ["One more model is made on all of your patients who may train, and nobody is judged by it."]
        return [
            f"Your patients are split into up to {validation.folds} parts, each with at least the minimum count of "
            "those who train; each part is judged by a model it did not train.",
            *(final if validation.final_model else []),
        ]
    parts = validation.fractions
    return [
        f"Your patients are split once, by a key that stays with you: {parts.train:.0%} train the model, "
        f"{parts.validation:.0%} set the age-bias correction, {parts.test:.0%} are only reported on."
    ]


def _parts_of_validation(campaign: Campaign) -> list[str]:
    parts = campaign.validation.fractions
    if parts is not None:
        return [
            f"Your patients are split once, by a key that stays with you: {parts.validation:.0%} set your site's "
            "age-bias line, the others are only reported on."
        ]
    line = "" if campaign.bias.scope == "pooled" else "; each part is corrected by a line fitted on the others"
    models = "" if campaign.final_fold is not None else ", and each part is judged by a model of its own"
    return [f"All of your patients are reported on, in {campaign.validation.folds} parts{models}{line}."]


def _analyses(campaign: Campaign) -> list[str]:
    line = "one line for each site" if campaign.bias.scope == "site" else "one line for all sites"
    whom = "healthy patients" if campaign.cohort.train_on == "healthy" else "patients"
    predicted = campaign.table is not None and campaign.table.predicted is not None
    sentences = (
        [f"It computes how far the ages that your tables already predict are from true ages, over your {whom}."]
        * predicted
        if campaign.estimator is None
        else [
            "It computes how far predicted ages are from true ages, before and after correcting the age bias "
            f"({line}, from healthy patients the model was not trained on)."
        ]
    )
    survival = campaign.survival
    if survival is not None:
        sentences.append(
            f"It relates the age gap to follow-up (columns {survival.time} in years and {survival.event}, 1 = event)"
            f"{_models(survival)}."
        )
        sentences.append(_grid(survival))
    if campaign.groups is not None:
        sentences.append(_groups(campaign.groups))
    return [*sentences, *_further(campaign)]


def _further(campaign: Campaign) -> list[str]:
    """What the analyses ask that the file gives a table of their own, or that an option of the estimator implies."""
    names = (*campaign.analyses.asked_for(), *(["site-probe"] if LIKELY_SITE in campaign.predicted_columns else []))
    if not names:
        return []
    # Imported here: only a file that asks for one needs to know them.
    from fedage.common.analyses.registry import definition_of

    asked_for = (definition_of(name) for name in names)
    return [sentence for each in asked_for if each is not None for sentence in each.asked(campaign)]


def _groups(groups: Groups) -> str:
    held = f", with {listed(groups.covariates)} held fixed" if groups.covariates else ""
    return (
        f"It compares the age gap of patients with {groups.column} = {groups.equals:g} with that of patients with "
        f"{groups.column} = {groups.reference:g} inside each site{held}; your site's own difference is told too."
    )


def _models(survival: Survival) -> str:
    if not survival.models:
        return ", without a Cox model"

    def words(model: CoxModel) -> str:
        return f"{model.name} ({listed(model.covariates)}{', sites apart' if model.by_site else ', sites pooled'})"

    return f", with {_count(len(survival.models), 'Cox model')}: {'; '.join(words(model) for model in survival.models)}"


def _grid(survival: Survival) -> str:
    if survival.time_grid_years == 0:
        return "Follow-up times are used exactly inside your site; no table by time leaves it."
    grid = f"Follow-up times are rounded up to steps of {survival.time_grid_years:g} years"
    if not survival.table_times_years:
        return f"{grid}; no table by time leaves your site."
    times = ", ".join(f"{time:g}" for time in survival.table_times_years)
    return (
        f"{grid}; tables of events and patients at risk leave your site for the times {times} years, those of them on "
        "which the sites agree."
    )


def _leaves(campaign: Campaign) -> list[str]:
    minimum = campaign.privacy.minimum_count
    return [
        "What leaves your site: "
        + ("updates of the model (one array of numbers a round), and " if campaign.training else "")
        + "sums and counts over patients.",
        "No image, no identifier and no value of a single patient is asked for. "
        + (
            f"A sum or count with fewer than {minimum} patients behind it is withheld."
            if minimum > 1
            else "The file asks for no minimum count: sums over a single patient may leave."
        ),
    ]


def _privacy(campaign: Campaign) -> list[str]:
    privacy = campaign.privacy
    if privacy.mode == "none":
        first = (
            "There is no differential privacy: from a few model updates the coordinator can work out records of the "
            "patients trained on, above all where they are few; minimum count and policy do not prevent that."
            if campaign.training
            else "There is no differential privacy: sums are protected by the connection, the minimum count and your "
            "own policy only."
        )
    else:
        budget = (
            f"ε = {privacy.epsilon:g}, δ = {privacy.delta:g}"
            if privacy.epsilon is not None and privacy.delta is not None
            else f"noise multiplier {privacy.noise_multiplier:g}"
            if privacy.noise_multiplier is not None
            else "no stated budget"
        )
        outside = (
            "how far predicted ages are off, the age-bias line and the other analyses: their sums leave without noise, "
            "under the minimum count and your policy; the validation of each round is not told."
        )
        noised = ""
        if campaign.noises_validation:
            noised = "and to the errors on validation patients and the age-bias line, which are told with noise "
            outside = (
                "how far predicted ages of test patients are off and the other analyses: their sums leave without "
                "noise, under the minimum count and your policy."
            )
        of_patients = (
            f"Differential privacy hides the contribution of one patient to the updates of the model {noised}({budget}"
            "): all exams of a patient are one contribution, and the number of your patients is taken to be known. It "
            f"does not cover {outside}"
        )
        of_sites = (
            f"Differential privacy hides what your whole site contributes to the model ({budget}) from everybody but "
            "the coordinator: your site clips its update, the coordinator sees it without noise and adds noise to the "
            "mean of all sites, which you have to trust it with. A patient's record may be worked out from your update "
            "as without differential privacy. How far predicted ages are off, the age-bias line and the other analyses "
            "are not covered; the validation of each round is not told."
        )
        first = of_patients if privacy.mode == "sample" else of_sites
    if not privacy.secure_aggregation:
        return [first, "Secure aggregation is off: the coordinator sees your site's own sums."]
    second = (
        "Secure aggregation is on: your site's sums and updates leave masked, and only their sum over at least "
        f"{privacy.minimum_sites} sites is opened, and nothing of the same kind over other sites, which would tell "
        "yours by subtraction: so a campaign waits for a site that leaves, or ends (may_be_left_out in policy.toml "
        "lets the others go on without yours). That your site takes part, which steps it withholds and why are told."
    )
    if privacy.mode == "sample":
        second += " Training goes on without a site that leaves: its updates alone are noised as said above."
    if privacy.results_by_site:
        second += " It asks for results by site: yours are told if your policy has tells_own_results, else hidden."
    keys = ", ".join(f"{site} {key}" for site, key in sorted(privacy.site_keys.items()))
    third = (
        "The sites know each other by the keys in this file. Compare each with what fedage site audit key prints "
        f"there, not by way of the coordinator, before you approve: {keys or 'the file has none'}."
    )
    return [first, second, third]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
