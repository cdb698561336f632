"""An audit of a results table: attacks on its inputs, and what they say about its certificates."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from dualrs.data import Dataset
from dualrs.evaluation import metadata as describe
from dualrs.evaluation.attack._aims import Adversary
from dualrs.evaluation.attack._attempts import Attacker, Target
from dualrs.evaluation.attack._plan import Plan
from dualrs.evaluation.attack._store import AUDIT, Audit, AuditStore
from dualrs.evaluation.attack._summary import summarize_attempts
from dualrs.evaluation.attack._victim import victim_of
from dualrs.evaluation.certifying import refuse_other_noise
from dualrs.evaluation.manifest import Manifest, read_manifest
from dualrs.evaluation.selection import evenly_spaced, format_indices
from dualrs.evaluation.store import opened
from dualrs.evaluation.table import DUAL
from dualrs.progress import Progress, remark
from dualrs.sampling import Done, Failed, Intake, Item, LocalRunner, Runner, Work
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

_POINTERS = 256  # images of the data set among which the nearest of other classes are looked for


def audit(
    model: SmoothedClassifier | DualSmoothedClassifier,
    dataset: Dataset,
    table: pl.DataFrame,
    plan: Plan | None = None,
    *,
    method: str = DUAL,
    images: int | None = None,
    seed: int | None = None,
    significance: float = 0.01,
    folder: str | Path | None = None,
    overwrite: bool = False,
    model_digest: str | None = None,
    info: Mapping[str, Any] | None = None,
    engine: Mapping[str, Mapping[str, Any]] | None = None,
    runner: Runner | None = None,
) -> Audit:
    """Tries to break certificates inside their balls; sound ones are called wrong with probability ≤ ``significance``.

    For each input: the point itself is decided, then the worst candidates of every aim strictly within the certified
    radius, then within each budget beyond it, as long as no wrong answer is known. Every decision is a prediction with
    abstention by the smoothed classifier itself, as the model is set up to run, with noise that neither the
    certificates nor the search have seen. All decisions on one input together are wrong with probability at most
    ``plan.alpha``. What follows from them is in `judge`.

    With a folder, finished inputs are on disk within seconds, and ``attack.parquet`` and ``attack.json`` are written
    there at the end. If the folder holds an audit of the same certificates with the same settings, finished or killed
    at any moment, it is continued. An interrupt (Ctrl-C) ends the audit early; what was finished counts. An
    input on which an attack raises is set aside, and the others go on.

    Args:
        model: whose certificates are in the table, set up to run as it was then.
        dataset: the images that were certified; those that are audited must differ.
        table: a results table.
        plan: how to go about it; None tries moderately.
        method: whose certificates are audited.
        images: so many inputs of the table, evenly spaced, whatever became of them; None takes all.
        seed: of decisions and search, at least 0; None takes that of the audit in the folder, or else draws a secret
            one. It must not be that of the certificates.
        significance: how improbable bad luck must be before certificates are called wrong, in (0, 1).
        folder: made if absent; None writes nothing.
        overwrite: begin anew, and replace the audit in the folder as soon as an input is finished.
        model_digest: names the model in the record, as `dualrs.models.bundle_digest` does.
        info: anything else worth recording, as JSON values.
        engine: on what the certificates were made, as a run records it; it is remarked on where that differs.
        runner: where the attacks run; None takes this process.

    Raises:
        ValueError: an argument is outside of its range, the model has no such method, or the table is not about these
            images.
        BlockingIOError: another process writes to the folder.
        FileExistsError: the folder holds an audit of which it is not known how it was made.
        RunError: the folder holds an audit with other settings, which the message names, or one that is damaged.
    """
    plan, folder = plan or Plan(), None if folder is None else Path(folder)
    if seed is None:
        seed = secrets.randbits(62) if overwrite else _earlier_seed(folder)
    if (images is not None and images < 1) or seed < 0 or not 0 < significance < 1:
        raise ValueError(
            "images must be at least 1, seed at least 0 and significance in (0, 1); got "
            f"images={images}, seed={seed} and significance={significance}"
        )
    rows = _picked(table, method, images)
    inputs = _Inputs(model, dataset)
    targets = [Target(*row) for row in rows.select(Target._fields).iter_rows()]
    of = {
        "method": method,
        "rule": rows["rule"][0],
        "pointers": inputs.pointers(),
        "shape": inputs.of(targets[0]).shape,
    }
    work = Attacking(model, plan, seed=seed, **of)
    with (runner or LocalRunner()).hire(work) as crew:
        settings = {**asdict(plan), "level": plan.level, "method": method, "images": len(rows), "seed": seed}
        settings |= {"significance": significance, "noise": work.noise}
        manifest = Manifest(
            made_with={
                "audit": json.loads(json.dumps(settings)),
                "certification": claims_of(rows),
                "model": describe.describe_model(model, model_digest),
                "data": describe.describe_data(dataset),
                "engine": crew.functions,
            },
            requested=frozenset(rows["idx"]),
            whole=frozenset(rows["idx"]),
        )
        begun = describe.describe_session({about["device"] for about in crew.functions.values()}, info or {})

        def judged(attempts: pl.DataFrame, manifest: Manifest) -> Audit:
            tried = rows.filter(pl.col("idx").is_in(attempts["idx"].unique().implode()))
            summary = {
                "method": method,
                "complete": len(tried) == len(rows),
                "requested": len(rows),
                **summarize_attempts(tried, attempts, plan, significance),
                "remarks": [*work.remarks(), *_differences(engine or {}, crew.functions)],
                "metadata": describe.describe_work(manifest),
            }
            return Audit(attempts, summary, len(tried) == len(rows))

        session = partial(describe.with_progress, begun, crew)
        with opened(partial(AuditStore, judged), folder, manifest, session, overwrite=overwrite) as store:
            if store.done:
                remark(f"{folder}: {len(store.done):,} of {len(rows):,} inputs are attacked already")
            breaks = 0
            items = (Item(target.idx, inputs.of(target), target) for target in targets if target.idx not in store.done)
            try:
                with Progress("attacking", total=len(rows), unit="images") as progress:
                    progress.advance(len(store.done), measured=False)
                    for found in crew.run(items):
                        if isinstance(found, Failed):
                            store.fail(found.key, found)
                            continue
                        store.add(found.result)
                        breaks += sum(attempt["broken"] for attempt in found.result)
                        progress.advance(1, note=f"{breaks} breaks")
            except KeyboardInterrupt:
                if not store.done:
                    raise
            return store.finish()


class Attacking(Work):
    """Attacks inputs; items carry a `Target`, and the result is rows of `ATTEMPTS`.

    Args:
        model: whose certificates are attacked.
        plan: how to go about it.
        method: whose they are.
        rule: of the certificates.
        pointers: images and labels to point to.
        shape: of an input.
        seed: of decisions and search.
        noise: what draws it, by name; None takes what does here.
    """

    def __init__(
        self,
        model: SmoothedClassifier | DualSmoothedClassifier,
        plan: Plan,
        *,
        method: str,
        rule: str,
        pointers: tuple[Tensor, Tensor],
        shape: torch.Size,
        seed: int,
        noise: str | None = None,
    ) -> None:
        self._model, self._shape = model, shape
        self._victim = victim_of(model, method, rule)
        self._attacker = Attacker(self._victim, Adversary(self._victim, plan, *pointers), plan, seed)
        self.noise = noise or self._attacker.engine.noise.name
        self.stats = self._attacker.engine.stats
        named: dict[str, Any] = {"method": method, "rule": rule, "pointers": pointers, "shape": shape, "seed": seed}
        self._make = partial(Attacking, model, plan, **named, noise=self.noise)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._make, ()

    def describe(self) -> Mapping[str, Any]:
        """See `dualrs.evaluation.certifying.Certifying.describe`; only what the method asks."""
        refuse_other_noise(self.noise, self._attacker.engine)
        described = describe.describe_functions(self._model, self._shape)
        return {name: described[name] for name in self._victim.parts}

    def run(self, items: Intake[Item]) -> Iterator[Done]:
        """See `Work.run`; one input after the other, for each attack fills its own batches."""
        while (item := items.take(wait=True)) is not None:
            yield Done(item.key, self._attacker.attack(item.about, item.x))

    def remarks(self) -> list[str]:
        """What the audit leaves out, in sentences."""
        return self._attacker.remarks()


def claims_of(rows: pl.DataFrame) -> dict[str, Any]:
    """Gives, as JSON values, of which certificates an audit is: of whose, on which inputs, and a digest of them.

    Args:
        rows: of a results table, of one method.
    """
    claimed = rows.sort("idx").select("idx", "label", "predicted", "radius", "alpha", "rule")
    return {
        "methods": rows["method"].unique().to_list(),
        "inputs": format_indices(rows["idx"]),
        "digest": hashlib.sha256(json.dumps(claimed.rows()).encode()).hexdigest(),
    }


def _picked(table: pl.DataFrame, method: str, images: int | None) -> pl.DataFrame:
    rows = table.filter(method=method).sort("idx")
    if rows["predicted"].is_null().all():
        known = ", ".join(table["method"].unique(maintain_order=True))
        raise ValueError(f"there is no certificate of method {method!r} to audit; methods in the table: {known}")
    return rows[evenly_spaced(images or len(rows), len(rows))]


def _earlier_seed(folder: Path | None) -> int:
    """That of the audit in the folder, which can only be continued with it; a fresh secret one if there is none."""
    path = folder and folder / AUDIT.manifest
    return int(read_manifest(path).made_with["audit"]["seed"]) if path and path.exists() else secrets.randbits(62)


def _differences(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In what base classifiers run otherwise than for the certificates, in sentences: they are other functions."""
    return [
        f"{name} was certified on {what} {then[name][what]} and is audited on {about[what]}."
        for name, about in now.items()
        if name in then
        for what in ("backend", "device", "precision")
        if then[name][what].partition(":")[0] != about[what]  # whichever of several GPUs
    ]


class _Inputs:
    """The images of a data set as inputs of a model, by their positions in the published split."""

    def __init__(self, model: SmoothedClassifier | DualSmoothedClassifier, dataset: Dataset) -> None:
        self._model, self._dataset = model, dataset
        published = getattr(dataset, "indices", None)
        self._positions = {i if published is None else int(published[i]): i for i in range(len(dataset))}

    def of(self, target: Target) -> Tensor:
        position = self._positions.get(target.idx)
        if position is None or self._dataset.label(position) != target.label:
            raise ValueError(
                f"the table is not about these images: it has one of class {target.label} at {target.idx}, and "
                f"{self._dataset.name} has "
                + ("none there" if position is None else f"one of class {self._dataset.label(position)}")
            )
        return self._model.to_input(self._dataset.image(position))

    def pointers(self) -> tuple[Tensor, Tensor]:
        """Some images (N, …) and their labels (N,), spread evenly."""
        some = evenly_spaced(_POINTERS, len(self._dataset))
        images = torch.stack([self._model.to_input(self._dataset.image(i)) for i in some])
        return images, torch.tensor([self._dataset.label(i) for i in some])
