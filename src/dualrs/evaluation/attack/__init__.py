"""Attacks as an audit: attempts to break certified inputs inside their certified balls, weighed against bad luck.

An audit can show that certificates are wrong. That none is broken proves nothing: see docs/attacks.md.
"""

from dualrs.evaluation.attack._aims import Adversary
from dualrs.evaluation.attack._attempts import ATTEMPTS
from dualrs.evaluation.attack._audit import audit, claims_of
from dualrs.evaluation.attack._ball import Ball
from dualrs.evaluation.attack._plan import AIMS, Aim, Plan, plan_of
from dualrs.evaluation.attack._record import audit_run, command_of, read_audit
from dualrs.evaluation.attack._rendering import render_audit
from dualrs.evaluation.attack._store import Audit
from dualrs.evaluation.attack._verdict import Verdict, judge
from dualrs.evaluation.attack._victim import Victim, victim_of

__all__ = [
    "AIMS",
    "ATTEMPTS",
    "Adversary",
    "Aim",
    "Audit",
    "Ball",
    "Plan",
    "Verdict",
    "Victim",
    "audit",
    "audit_run",
    "claims_of",
    "command_of",
    "judge",
    "plan_of",
    "read_audit",
    "render_audit",
    "victim_of",
]
