"""A run over a data set: every method on every input, in one pass that shares votes between methods."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import index
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from dualrs.certificates import Procedure, certify
from dualrs.data import Dataset
from dualrs.evaluation import metadata as describe
from dualrs.evaluation.baselines import BASELINES, baseline_procedures
from dualrs.evaluation.certifying import Certifying
from dualrs.evaluation.indices import Indices
from dualrs.evaluation.manifest import Manifest, RunError
from dualrs.evaluation.runs import Evaluation
from dualrs.evaluation.selection import shard_of
from dualrs.evaluation.store import RunStore, open_store
from dualrs.evaluation.table import DUAL, global_name, global_names, row_of
from dualrs.progress import Progress, remark
from dualrs.sampling import Crew, Failed, Item, LocalRunner, Runner
from dualrs.smoothing import STOPPING, CertifyOptions, DualSmoothedClassifier, FixedOptions, SmoothedClassifier

_MOST_IN_A_ROW = 5  # failures of inputs, before it is taken for a fault of the model

DEFAULTS: CertifyOptions = {
    "n0": 100,
    "n": 10_000,
    "alpha": 0.001,
    "tolerance": 0.0,
    "target": None,
    "time_budget": None,
    "sequence": "spending",
}
"""What is recorded, and used, where nothing else is given."""


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
    2019, as published. A model with one σ has "global-σ" by the first rule, and "global-σ-RULE". A baseline (see
    `dualrs.evaluation.BASELINES`) is a method of its own name. All have failure probability α, each for itself, but for
    "multiscale", whose certificates say what it spends.

    Args:
        model: whose base classifiers vote.
        rules: how the model is certified, see its `procedure`, and names of baselines; None takes the rule with the
            largest radii.
        global_sigmas: whether a dual model is compared with its experts.
        **options: see `dualrs.smoothing.CertifyOptions`. Goals concern the rules that can stop early.

    Raises:
        ValueError: an argument is outside of its range, or `n` too small for `alpha`.
    """
    fixed: dict[str, Any] = {name: value for name, value in options.items() if name in FixedOptions.__annotations__}
    rules = rules or _default_rules(model)
    if len(set(rules)) < len(rules):
        raise ValueError(f"rules must be named once each; got {list(rules)}")
    made: dict[str, Callable[[], Procedure]] = {}
    first = global_name(model.sigma) if isinstance(model, SmoothedClassifier) else DUAL
    own_rules = [rule for rule in rules if rule not in BASELINES]
    for rule in own_rules:
        own = options if rule in STOPPING else fixed
        made[first if rule == own_rules[0] else f"{first}-{rule}"] = partial(model.procedure, rule, **own)
    made |= baseline_procedures(model, [rule for rule in rules if rule in BASELINES], **fixed)
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
    shard: tuple[int, int] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    overwrite: bool = False,
    rules: Sequence[str] | None = None,
    global_sigmas: bool = True,
    model_digest: str | None = None,
    info: Mapping[str, Any] | None = None,
    runner: Runner | None = None,
    **options: Unpack[CertifyOptions],
) -> Evaluation:
    """Certifies a model on a data set with every method of `procedures`, and adds the oracle's rows.

    The certificates are those that ``model.certify`` gives for each input alone, whatever the order, the
    batch size and the other methods. With a folder, finished inputs are on disk within seconds, and
    ``certificates.parquet``, ``summary.json`` and ``curves.png`` are written there at the end. If the folder holds a
    run that was made with the same model, data and settings, finished or killed at any moment, it is continued: what
    is there is kept, and what was asked for, then or now, and is missing is certified.

    An interrupt (Ctrl-C) ends the run early: the inputs finished by then are written, but for the curves, and returned
    with ``complete`` False. An input that cannot be read, or on which a base classifier raises, also when it is alone,
    is set aside with its traceback in ``failed.json``, and the others go on; so ``complete`` is False then too. What is
    no fault of an input, such as five failures of base classifiers in a row, ends the run: what is finished is written
    before the error passes through.

    Args:
        model: what to certify. A base classifier that is a mere callable has no digest: who continues a run with one
            vouches for it, or names the model by ``model_digest``.
        dataset: labelled images; each must be an input that the model takes.
        indices: positions in the data set; None takes all of it. The `idx` of a result is the position in
            the published split, where the data set knows it.
        shard: (i, k) takes the i-th of k shards of these; `merge_runs` puts shards together.
        seed: of the noise; the same inputs, seed and settings give the same certificates.
        folder: made if absent; None writes nothing.
        overwrite: begin anew, and replace what is in the folder as soon as an input is finished.
        rules: how the model is certified, see `procedures`.
        global_sigmas: whether a dual model is compared with its experts, each with one σ for all inputs.
        model_digest: names the model in the record, as `dualrs.models.bundle_digest` does.
        info: anything else worth recording, as JSON values.
        runner: where the base classifiers run; None takes this process.
        **options: see `dualrs.smoothing.CertifyOptions`.

    Raises:
        ValueError: an impossible argument, or the model does not take the first images.
        IndexError: a position lies outside of the data set.
        FileExistsError: the folder holds results, of which it is not known what they were made with.
        BlockingIOError: another process writes to the folder.
        RunError: the folder holds a run that was made with something else, which the message names, or that is
            damaged; or finished inputs could not be written.
    """
    published = _published(dataset)
    positions = _positions(dataset, indices, published)
    chosen = shard_of(positions, *shard) if shard else positions
    options = {**DEFAULTS, **options}
    methods = procedures(model, rules=rules, global_sigmas=global_sigmas, **options)
    work = Certifying(model, methods, _shape(model, dataset, chosen), index(seed))
    certification = {
        **options,
        "seed": index(seed),
        "noise": model.engine().noise.name,
        "dtype": describe.DTYPE,
        "rules": list(rules or _default_rules(model)),
        "methods": list(methods),
    }
    with (runner or LocalRunner()).hire(work) as crew:
        manifest = Manifest(
            made_with={
                "certification": certification,
                "model": describe.describe_model(model, model_digest),
                "data": describe.describe_data(dataset),
                "engine": crew.functions,
            },
            requested=(requested := Indices(published[position] for position in chosen)),
            whole=requested if shard is None else Indices(published[position] for position in positions),
        )
        begun = describe.describe_session({about["device"] for about in crew.functions.values()}, info or {})
        path, started = None if folder is None else Path(folder), time.perf_counter()
        with open_store(path, manifest, partial(describe.with_progress, begun, crew), overwrite=overwrite) as store:
            _say_what_is_there(store, manifest, folder)
            items = _items(model, dataset, published, store)
            try:
                with Progress("certifying", total=len(store.manifest.requested), unit="images") as progress:
                    progress.advance(len(store.done), measured=False)
                    in_a_row = 0
                    for found in crew.run(items):
                        idx = published[found.key]
                        if isinstance(found, Failed):
                            store.fail(idx, found)
                            in_a_row += 1
                            if in_a_row == _MOST_IN_A_ROW:
                                raise RuntimeError(f"{in_a_row} inputs failed in a row, the last by {found.error}")
                            continue
                        in_a_row = 0
                        label, outcomes = dataset.label(found.key), found.result.items()
                        store.add([row_of(idx, method, label, outcome) for method, outcome in outcomes])
                        progress.advance(1, note=_rate(crew, started))
            except KeyboardInterrupt:
                return store.finish()
            except Exception as error:
                try:
                    if kept := store.finish().folder:
                        error.add_note(
                            f"The {len(store.done)} inputs that were finished before this error are in {kept}."
                        )
                except RunError as unwritten:
                    error.add_note(str(unwritten))
                raise
            return store.finish()


def _default_rules(model: SmoothedClassifier | DualSmoothedClassifier) -> tuple[str, ...]:
    return ("adaptive",) if isinstance(model, SmoothedClassifier) else ("routed",)


def _published(dataset: Dataset) -> Sequence[int]:
    """By position in the data set: the position in the published split."""
    known = getattr(dataset, "indices", None)
    return range(len(dataset)) if known is None else [int(i) for i in known]


def _positions(dataset: Dataset, indices: Sequence[int] | None, published: Sequence[int]) -> Sequence[int]:
    """The positions that are asked for."""
    positions = range(len(dataset)) if indices is None else [index(i) for i in indices]
    if not positions:
        raise ValueError("there is nothing to certify: the data set or `indices` is empty")
    if outside := [i for i in positions if not 0 <= i < len(dataset)]:
        raise IndexError(f"indices must lie in [0, {len(dataset)}); got {outside[0]}")
    if len(Indices(published[i] for i in positions)) < len(positions):
        raise ValueError(
            "an input is asked for twice: `indices`, and the positions in the published split, must differ"
        )
    return positions


def _shape(
    model: SmoothedClassifier | DualSmoothedClassifier, dataset: Dataset, positions: Sequence[int]
) -> torch.Size:
    """Of the inputs, from the first that can be read; if not even the first few can, that is an error."""
    errors = []
    for position in positions[:_MOST_IN_A_ROW]:
        try:
            return _image(model, dataset, position).shape
        except (OSError, ValueError) as error:
            errors.append(error)
    raise errors[0]


def _items(
    model: SmoothedClassifier | DualSmoothedClassifier, dataset: Dataset, published: Sequence[int], store: RunStore
) -> Iterator[Item]:
    """The inputs that are missing, read as they are wanted.

    One that cannot be read, or that the model does not take, is set aside.
    """
    for position, idx in enumerate(published):
        if idx in store.manifest.requested and idx not in store.done:
            try:
                yield Item(position, _image(model, dataset, position))
            except (OSError, ValueError) as error:
                store.fail(idx, Failed(position, str(error), traceback.format_exc()))


def _image(model: SmoothedClassifier | DualSmoothedClassifier, dataset: Dataset, position: int) -> Tensor:
    try:
        return model.to_input(dataset.image(position))
    except ValueError as error:
        raise ValueError(f"image {position} of {dataset.name}: {error}") from error


def _say_what_is_there(store: RunStore, wanted: Manifest, folder: str | Path | None) -> None:
    if not store.done:
        return
    requested = store.manifest.requested
    remark(f"{folder}: {len(store.done):,} of {len(requested):,} inputs are finished already")
    if earlier := requested - wanted.requested - store.done:
        remark(f"{len(earlier):,} of the others were asked for before, and are certified too")


def _rate(crew: Crew, started: float) -> str:
    votes = sum(stats.votes for stats in crew.stats.values())
    return f"{votes / (time.perf_counter() - started):,.0f} votes/s"
