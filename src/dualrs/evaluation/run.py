"""A run over a data set: every method on every input, in one pass that shares votes between methods."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from operator import index
from pathlib import Path
from typing import Any, Unpack, cast

import polars as pl
from torch import Tensor

from dualrs.certificates import Procedure, certify
from dualrs.data import Dataset
from dualrs.evaluation import metadata as describe
from dualrs.evaluation.metrics import STANDARD_RADII, summarize
from dualrs.evaluation.plots import plot_curves
from dualrs.evaluation.table import DUAL, global_name, global_names, oracle_rows, row_of, table_of, write_parquet
from dualrs.files import atomic_write
from dualrs.progress import Progress
from dualrs.sampling import Engine, Job, JobResult
from dualrs.smoothing import CertifyOptions, DualSmoothedClassifier, FixedOptions, SmoothedClassifier

CERTIFICATES = "certificates.parquet"
SUMMARY = "summary.json"
CURVES = "curves.png"

_ADAPTIVE = ("adaptive", "routed")  # the rules that stop when a goal is reached

DEFAULTS: CertifyOptions = {"n0": 100, "n": 10_000, "alpha": 0.001}
"""What is recorded, and used, where no other numbers are given."""


@dataclass(frozen=True)
class Evaluation:
    """What a run found.

    Attributes:
        table: a results table (see `dualrs.evaluation.SCHEMA`), ordered by `idx`.
        summary: the content of ``summary.json``: what `summarize` gives, with ``complete``, ``requested``
            (inputs asked for) and ``metadata``.
        complete: False if an interrupt ended the run early; what was finished is here all the same.
        folder: where the files are; None if none were written.
    """

    table: pl.DataFrame
    summary: dict[str, Any]
    complete: bool
    folder: Path | None


def procedures(
    model: SmoothedClassifier | DualSmoothedClassifier,
    *,
    rules: Sequence[str] | None = None,
    global_sigmas: bool = True,
    **options: Unpack[CertifyOptions],
) -> dict[str, Callable[[], Procedure]]:
    """Gives the methods that a model can be certified with, by name; each call makes a fresh procedure.

    A dual model has the method "dual" by the first rule, "dual-RULE" by every other and, to compare it with,
    "global-σ" for each of its experts at its own σ, "global-σ (NAME)" where σ has several: CERTIFY of Cohen et al.
    2019, as published. A model with one σ has "global-σ" by the first rule, and "global-σ-RULE". All have failure
    probability α, each for itself.

    Args:
        model: whose base classifiers vote.
        rules: how the model is certified, see its `procedure`; None takes the one with the largest radii.
        global_sigmas: whether a dual model is compared with its experts.
        **options: see `dualrs.smoothing.CertifyOptions`. Goals concern the rules that can stop early.

    Raises:
        ValueError: an argument is outside of its range, or `n` too small for `alpha`.
    """
    fixed: dict[str, Any] = {name: value for name, value in options.items() if name in FixedOptions.__annotations__}
    rules = rules or (("adaptive",) if isinstance(model, SmoothedClassifier) else ("routed",))
    if len(set(rules)) < len(rules):
        raise ValueError(f"rules must be named once each; got {list(rules)}")
    made: dict[str, Callable[[], Procedure]] = {}
    first = global_name(model.sigma) if isinstance(model, SmoothedClassifier) else DUAL
    for rule in rules:
        own = options if rule in _ADAPTIVE else fixed
        made[first if rule == rules[0] else f"{first}-{rule}"] = partial(model.procedure, rule, **own)
    if isinstance(model, DualSmoothedClassifier) and global_sigmas:
        for name, expert in zip(global_names(model.experts), model.experts, strict=True):
            made[name] = partial(certify, expert.sigma, **fixed, model=expert.name)
    for make in made.values():
        make().close()  # refuses impossible arguments before any work is done
    return made


def evaluate(
    model: SmoothedClassifier | DualSmoothedClassifier,
    dataset: Dataset,
    *,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    overwrite: bool = False,
    rules: Sequence[str] | None = None,
    global_sigmas: bool = True,
    model_digest: str | None = None,
    info: Mapping[str, Any] | None = None,
    **options: Unpack[CertifyOptions],
) -> Evaluation:
    """Certifies a model on a data set with every method of `procedures`, and adds the oracle's rows.

    The certificates are those that ``model.certify`` gives for each input alone, whatever the order, the
    batch size and the other methods. With a folder, ``certificates.parquet``, ``summary.json`` and
    ``curves.png`` are written there. An interrupt (Ctrl-C) ends the run early: the inputs finished by then
    are written, but for the curves, and returned with ``complete`` False. Where an input or a base
    classifier raises, they are written likewise before the error passes through.

    Args:
        model: what to certify.
        dataset: labelled images; each must be an input that the model takes.
        indices: positions in the data set; None takes all of it. The `idx` of a result is the position in
            the published split, where the data set knows it.
        seed: of the noise; the same inputs, seed and settings give the same certificates.
        folder: made if absent; None writes nothing.
        overwrite: replace results that are in the folder already.
        rules: how the model is certified, see `procedures`.
        global_sigmas: whether a dual model is compared with its experts, each with one σ for all inputs.
        model_digest: names the model in the record, as `dualrs.models.bundle_digest` does.
        info: anything else worth recording, as JSON values.
        **options: see `dualrs.smoothing.CertifyOptions`.

    Raises:
        ValueError: an impossible argument, or an image that the model does not take.
        IndexError: a position lies outside of the data set.
        FileExistsError: the folder holds results and `overwrite` is False.
    """
    inputs = _inputs(dataset, indices)
    options = {**DEFAULTS, **options}
    methods = procedures(model, rules=rules, global_sigmas=global_sigmas, **options)
    engine = model.engine()
    run = _Run(
        engine,
        inputs,
        settings={**options, "seed": seed, "noise": engine.noise.name, "dtype": describe.DTYPE},
        model=describe.describe_model(model, model_digest),
        data=describe.describe_data(dataset),
        info=dict(info or {}),
        folder=None if folder is None else _prepare(Path(folder), overwrite),
    )
    jobs = (
        Job(position, _image(model, dataset, position), {name: make() for name, make in methods.items()}, seed)
        for position in inputs
    )
    try:
        with Progress("certifying", total=len(inputs), unit="images") as progress:
            for result in run.engine.run(jobs):
                run.add(result)
                progress.advance(1, note=run.note())
    except KeyboardInterrupt:
        return run.finish(complete=False)
    except Exception as error:
        if kept := run.finish(complete=False).folder:
            error.add_note(f"The {run.finished} inputs that were finished before this error are in {kept}.")
        raise
    return run.finish(complete=True)


@dataclass
class _Run:
    """The results so far, and what they were made with."""

    engine: Engine
    inputs: Mapping[int, tuple[int, int]]
    settings: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    info: dict[str, Any]
    folder: Path | None
    finished: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    _created: datetime = field(default_factory=lambda: datetime.now(UTC))
    _started: float = field(default_factory=time.perf_counter)

    def add(self, result: JobResult) -> None:
        idx, label = self.inputs[cast(int, result.key)]
        for method, outcome in result.outcomes.items():
            certificate = outcome.certificate
            about = {"rule": certificate.rule, "alpha": certificate.alpha, "alpha_split": {}}
            # An abstention may skip a stage, so the split is gathered from all certificates.
            self._methods.setdefault(method, about)["alpha_split"].update(
                {stage.name: stage.level for stage in certificate.stages if stage.level is not None}
            )
        self._rows += [row_of(idx, method, label, outcome) for method, outcome in result.outcomes.items()]
        self.finished += 1

    def note(self) -> str:
        votes = sum(stats.votes for stats in self.engine.stats.values())
        return f"{votes / (time.perf_counter() - self._started):,.0f} votes/s"

    def finish(self, *, complete: bool) -> Evaluation:
        table = table_of(self._rows)
        if DUAL in self._methods:  # with one method there is no choice that an oracle could make
            table = pl.concat([table, oracle_rows(table)]).sort("idx", maintain_order=True)
        state = {"complete": complete, "requested": len(self.inputs)}
        summary = {**state, **summarize(table, STANDARD_RADII), "metadata": self._metadata()}
        # Where nothing was finished there is nothing to keep, and older results are not replaced by it.
        evaluation = Evaluation(table, summary, complete, self.folder if self.finished else None)
        if evaluation.folder is not None:
            _write(evaluation, evaluation.folder)
        return evaluation

    def _metadata(self) -> dict[str, Any]:
        models = describe.describe_engine(self.engine.stats)
        return {
            "created": self._created.isoformat(timespec="seconds"),
            "wall_seconds": time.perf_counter() - self._started,
            "certification": {**self.settings, "methods": self._methods},
            "model": self.model,
            "data": self.data,
            "engine": models,
            "software": describe.software(),
            "machine": describe.machine({model["device"] for model in models.values()}),
            "info": self.info,
        }


def _inputs(dataset: Dataset, indices: Sequence[int] | None) -> dict[int, tuple[int, int]]:
    """By position in the data set: the position in the published split, and the true class."""
    positions = list(range(len(dataset))) if indices is None else [index(i) for i in indices]
    if not positions:
        raise ValueError("there is nothing to certify: the data set or `indices` is empty")
    if outside := [i for i in positions if not 0 <= i < len(dataset)]:
        raise IndexError(f"indices must lie in [0, {len(dataset)}); got {outside[0]}")
    published = getattr(dataset, "indices", None)
    idx = [i if published is None else int(published[i]) for i in positions]
    if len(set(idx)) < len(idx):
        raise ValueError(
            "an input is asked for twice: `indices`, and the positions in the published split, must differ"
        )
    return {i: (known, dataset.label(i)) for i, known in zip(positions, idx, strict=True)}


def _image(model: SmoothedClassifier | DualSmoothedClassifier, dataset: Dataset, position: int) -> Tensor:
    try:
        return model.to_input(dataset.image(position))
    except ValueError as error:
        raise ValueError(f"image {position} of {dataset.name}: {error}") from error


def _prepare(folder: Path, overwrite: bool) -> Path:
    # Now, and not after hours of work: what cannot be written must not be begun.
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / CERTIFICATES).exists() and not overwrite:
        raise FileExistsError(f"{folder} holds results already ({CERTIFICATES}): choose another folder, or overwrite")
    return folder


def _write(evaluation: Evaluation, folder: Path) -> None:
    write_parquet(evaluation.table, folder / CERTIFICATES)
    with atomic_write(folder / SUMMARY) as file:
        file.write((json.dumps(evaluation.summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    if not evaluation.complete:
        (folder / CURVES).unlink(missing_ok=True)  # an earlier run's, which these results replace
        return
    about = evaluation.summary["metadata"]
    settings, data = about["certification"], about["data"]
    place = " ".join(part for part in (data["name"], data["split"]) if part)
    plot_curves(
        evaluation.table,
        folder / CURVES,
        title="Certified accuracy",
        subtitle=f"{place}, {evaluation.summary['inputs']:,} images, n = {settings['n']:,}, α = {settings['alpha']:g}",
    )
