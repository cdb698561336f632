"""What a report says of an audit: how a run's certificates were attacked, and whether they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dualrs.evaluation.pages._cells import Cell, Table, number, percent, word
from dualrs.evaluation.pages._runs import Run
from dualrs.evaluation.style import title_of

_ABOUT = (
    "Inside certified balls, points with another answer were looked for, and the smoothed classifier decided each, "
    "with noise that neither the certificates nor the search had seen. An audit can show that certificates are wrong; "
    "it cannot show that they are right."
)
_AIMS = {
    "none": "the input itself",
    "label": "another answer of the chosen expert",
    "choice": "the choice of another expert",
    "both": "another answer of all experts together",
    "random": "nothing: random directions",
    "transfer": "another answer of something else",
}


def audit_tables(run: Run) -> list[Table]:
    """Gives the attempts by aim and the accuracy by budget; without rows where the run has no audit."""
    audit: Mapping[str, Any] = run.audit or {"aims": {}, "accuracy": {}}
    return [_aims(audit["aims"]), _accuracy(audit["accuracy"])]


def audit_in_words(run: Run) -> dict[str, Any] | None:
    """Gives what stands beside the tables of an audit: about it, its figures, its verdict; None where there is none."""
    if run.audit is None:
        return None
    audit = run.audit
    return {
        "about": _ABOUT,
        "first": title_of(audit["method"], run.methods),
        "inputs": _inputs(audit),
        "headline": _headline(audit),
        "verdict": f"{audit['verdict'][0].upper()}{audit['verdict'][1:]}.",
        "wrong": audit["wrong"],
        "remarks": audit["remarks"],
    }


def audit_alarm(run: Run) -> str | None:
    """Gives the sentence about certificates that an audit found wrong; None where it found none, or there is none."""
    if run.audit is None or not run.audit["wrong"]:
        return None
    return (
        f"Attacks broke {len(run.audit['broken']):,} of {run.audit['inputs']:,} inputs inside their certified radius, "
        f"more than bad luck explains (p = {run.audit['p_value']:.2g}). Nothing on this page can be relied on before "
        "it is known why."
    )


def _inputs(audit: Mapping[str, Any]) -> str:
    if audit["complete"]:
        return f"{audit['inputs']:,} inputs"
    return f"{audit['inputs']:,} of {audit['requested']:,} inputs, for the audit was interrupted"


def _headline(audit: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    attempts = sum(figures["attempts"] for figures in audit["aims"].values())
    return [
        ("inputs attacked", number(audit["inputs"])),
        ("attempts on certificates", number(attempts)),
        ("inputs broken", number(len(audit["broken"]))),
        ("expected from bad luck, at most", number(audit["expected_broken"], ".2g")),
    ]


def _aims(aims: Mapping[str, Mapping[str, Any]]) -> Table:
    return Table(
        "attack-aims",
        "Attempts on certificates, by what they aimed at",
        "Beyond is by how much the points seemed to lie beyond the border where the answer "
        "changes, in the mean and in units of the input: far below 0 at every aim, the audit tried too little, or the "
        "certificates are far from tight.",
        (
            ("aim", "aim"),
            ("goes_for", "goes for"),
            ("attempts", "attempts"),
            ("broken", "decided breaks"),
            ("abstained", "abstained"),
            ("votes", "votes"),
            ("beyond", "beyond"),
        ),
        tuple(
            (
                word(aim),
                word(_AIMS.get(aim, "")),
                number(figures["attempts"]),
                number(figures["broken"], strong=bool(figures["broken"])),
                number(figures["abstained"]),
                number(figures["votes"]),
                number(figures["beyond"], "+z.3f"),
            )
            for aim, figures in aims.items()
        ),
    )


def _accuracy(accuracy: Mapping[str, Mapping[str, Any]]) -> Table:
    return Table(
        "attack-accuracy",
        "Accuracy under attack, % of the inputs attacked, by budget",
        "Empirical: no wrong answer is known within the budget. The accuracy under the strongest attack of that length "
        "lies between both, but for α. The attempts are those beyond what is certified.",
        (
            ("budget", "‖δ‖ ≤"),
            ("certified", "certified"),
            ("empirical", "empirical"),
            ("attempts", "attempts"),
        ),
        tuple(
            (word(budget), percent(at["certified"]), percent(at["empirical"]), number(at["attempts"]))
            for budget, at in accuracy.items()
        ),
    )
