"""What a site's policy let it do, and where its audit log stood, as the report and a terminal say it."""

from __future__ import annotations

from fedage.server.results import Results, SiteRecord

EVERYTHING = "training and evaluation"
_EVALUATES = "evaluation only"
_DIGITS = 12

PURPOSE = (
    "The role is what a site's own policy let it answer; the audit log's last line seen in this run, with the first "
    "digits of its hash, is kept by the coordinator, so that a log cut short or rewritten later shows "
    "(fedage site audit verify --head)."
)


def are_told(results: Results) -> bool:
    """Whether there is anything to tell: simulated sites have neither policy nor audit log."""
    return any(site.audit_head is not None or site.role not in ("", EVERYTHING) for site in results.sites)


def audit_head(site: SiteRecord) -> str:
    """E.g. `line 42, 3f0c9a1b22de…`; empty where none was seen."""
    head = site.audit_head
    return f"line {head.sequence}, {head.hash[:_DIGITS]}…" if head is not None else ""


def status(site: SiteRecord) -> str:
    """How it took part and why not; its role where that is not everything."""
    role = "" if site.role in ("", EVERYTHING) else f", {site.role}"
    return f"{site.status}{role}{': ' if site.reason else ''}{site.reason}"


def curves(results: Results) -> str:
    """Whose figures by round are, against the final ones."""
    evaluating = [site.name for site in results.sites if site.role == _EVALUATES]
    final = "the final figures" if results.campaign.folds else "those of the last round, and the final figures,"
    names = f" ({', '.join(evaluating)} only evaluate{'s' if len(evaluating) == 1 else ''})" if evaluating else ""
    return f"The figures by round are of the sites that train; {final} are of all sites that evaluate{names}."
