"""Audits of recorded runs: the model and the images that a run names, checked to be those."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dualrs.config import parse_section
from dualrs.data import Dataset
from dualrs.evaluation.attack._audit import audit, claims_of
from dualrs.evaluation.attack._plan import Plan
from dualrs.evaluation.attack._store import SUMMARY, Audit
from dualrs.evaluation.config import CertifyConfig
from dualrs.evaluation.runs import Evaluation
from dualrs.evaluation.selection import parse_indices
from dualrs.evaluation.table import ResultsError
from dualrs.progress import remark
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier


def command_of(run: Evaluation, **changes: Any) -> CertifyConfig:
    """Gives what `dualrs certify` was told to make a run, with some fields set anew.

    Raises:
        ResultsError: nothing is recorded of how the run was made.
        ConfigError: it says too little and the changes do not say the rest, as where a run was made by the library.
    """
    known = _metadata(run)["info"].get("command") or {"output": run.folder}
    return parse_section(CertifyConfig, {**known, **changes}, source=f"the command in {run.folder}")


def audit_run(
    run: Evaluation,
    model: SmoothedClassifier | DualSmoothedClassifier,
    dataset: Dataset,
    plan: Plan | None = None,
    *,
    model_digest: str,
    output: str | Path | None = None,
    **options: Any,
) -> Audit:
    """Audits a run, and writes ``attack.parquet`` and ``attack.json``; what is there of the same audit is continued.

    Args:
        run: as `dualrs.evaluation.open_run` gives it.
        model: of the run, set up to run as it was then.
        dataset: of the run.
        plan: how to go about it; None tries moderately.
        model_digest: of the model, as `dualrs.models.bundle_digest` gives it.
        output: the folder for the files; None takes the run's.
        **options: see `audit`.

    Raises:
        ResultsError: nothing is recorded of how the run was made.
        ValueError: model or images are not the run's, the seed is the certificates', or see `audit`.
        FileExistsError, RunError: the folder holds another audit, or one that is damaged, and `overwrite` is False.
    """
    metadata = _metadata(run)
    for what, digest in (("model", model_digest), ("data", dataset.digest)):
        _refuse_another(run, what, digest)
    if options.get("seed") == metadata["certification"]["seed"]:
        raise ValueError(
            f"seed {options['seed']} is that of the certificates: decisions need noise that these have not seen"
        )
    return audit(
        model,
        dataset,
        run.table,
        plan,
        folder=output or run.folder,
        model_digest=model_digest,
        info={"run": str(run.folder)},
        engine=metadata["engine"],
        **options,
    )


def read_audit(run: Evaluation) -> dict[str, Any] | None:
    """Reads the summary of the audit that a run's folder holds; None where there is none of the run's certificates.

    Raises:
        ResultsError: it is damaged.
    """
    path = run.folder and run.folder / SUMMARY
    if not path or not path.exists():
        return None
    try:
        summary: dict[str, Any] = json.loads(path.read_bytes())
        of = summary["metadata"]["certification"]
        method, inputs = summary["method"], parse_indices(of["inputs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path} is no summary of an audit ({type(error).__name__}: {error})") from error
    rows = run.table.filter(pl.col("idx").is_in(inputs), method=method)
    if claims_of(rows) != of:
        remark(f"{path} is an audit of other certificates than the run has now, and left out")
        return None
    return summary


def _metadata(run: Evaluation) -> Mapping[str, Any]:
    if not run.metadata:
        raise ResultsError(
            f"{run.folder or 'this table'} does not say how it was made, so there is nothing to audit: name the folder "
            "of a run, as `dualrs certify` writes it"
        )
    return run.metadata


def _refuse_another(run: Evaluation, what: str, digest: str) -> None:
    recorded = run.metadata[what]["digest"]
    if recorded not in (None, digest):  # a run may have recorded none
        raise ValueError(
            f"the {what} of {run.folder} has digest {recorded}; what was found has {digest}. An audit of "
            f"other than what was certified says nothing: name the right one with --{what}"
        )
