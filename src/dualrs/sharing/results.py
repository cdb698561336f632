"""What a card says of a run: its figures with how they came about, and one certificate that anyone can reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from dualrs.data import available
from dualrs.evaluation import (
    CURVES,
    DUAL,
    ORACLE,
    STANDARD_RADII,
    Evaluation,
    certified_accuracy_interval,
    open_run,
    radius_key,
)
from dualrs.evaluation.run import DEFAULTS
from dualrs.models.card import Check, markdown, markdown_table
from dualrs.smoothing import STOPPING, USUAL, Execution, FixedOptions

_GOALS: dict[str, Any] = {name: usual for name, usual in DEFAULTS.items() if name not in FixedOptions.__annotations__}


def open_shared_run(run: str | Path, digest: str) -> SharedRun:
    """Opens a run that is to be shown beside a model.

    Raises:
        FileNotFoundError, ResultsError, RunError: see `dualrs.evaluation.open_run`.
        ValueError: the run is not finished, or nothing is recorded of it, or it was made with another model.
    """
    evaluation = open_run(run)
    if not evaluation.metadata:
        raise ValueError(f"{run} is a table of which nothing is recorded: a card needs a run's folder")
    if not evaluation.complete:
        raise ValueError(
            f"{run} has {evaluation.table['idx'].n_unique():,} of {evaluation.requested:,} inputs: finish it first, "
            "for what is missing may not be like what is there"
        )
    if (found := evaluation.metadata["model"].get("digest")) != digest:
        raise ValueError(f"{run} was made with another model: its digest is {found}, that of the bundle is {digest}")
    return SharedRun(evaluation, str(run))


@dataclass(frozen=True)
class SharedRun:
    """A finished run of the model that is shared."""

    evaluation: Evaluation
    name: str

    @property
    def subtitle(self) -> str:
        """On what, with how many inputs and votes, at which α."""
        settings = self._settings
        return f"{self._place}, {self._inputs:,} inputs, n = {settings['n']:,}, α = {settings['alpha']:g}"

    def section(self) -> str:
        """The section of the card about the run."""
        settings, software = self._settings, self.evaluation.metadata["software"]
        versions = ", ".join(f"{name} {version}" for name, version in software.items())
        goals = [f"{name} {value}" for name, value in self._goals.items()]
        data = self.evaluation.metadata["data"]
        return "\n\n".join(
            (
                "## Certified accuracy",
                f"{self._inputs:,} inputs of {markdown(self._place)}; n0 = {settings['n0']:,}, n = {settings['n']:,}, "
                f"α = {settings['alpha']:g} for each certificate, seed {settings['seed']}"
                f"{''.join(f', {markdown(goal)}' for goal in goals)}. In percent, the share of inputs that get the "
                "true label with a radius above r; an abstention counts as wrong. ACR is the average certified radius.",
                self._table(),
                f"![Certified accuracy against radius]({CURVES})",
                f"The data have SHA-256 `{data['digest']}`. Noise: {markdown(settings['noise'])}. Made with "
                f"{markdown(versions)}.",
            )
        )

    def check(self) -> Check:
        """How to verify one certificate of the run, and all of them."""
        row, settings, data = self._row, self._settings, self.evaluation.metadata["data"]
        options = {name: settings[name] for name in FixedOptions.__annotations__}
        if row["rule"] in STOPPING:
            options |= self._goals
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        call = f"certificate = model.certify(x, seed={settings['seed']}, rule={row['rule']!r}, {given})"
        if data["name"] in _known_data():
            arguments = f'"{data["name"]}"' + (f', "{data["split"]}"' if data["split"] else "")
            imports = "from dualrs.data import open_dataset\n"
            image = (
                f"data = open_dataset({arguments})\n"
                f"position = {row['idx']} if data.indices is None else list(data.indices).index({row['idx']})\n"
                "x = data.image(position)\n"
            )
        else:
            imports, image = "", f"x = ...  # input {row['idx']} of the data\n"
        said = (
            "print(certificate)"
            if settings.get("time_budget") is not None
            else f"assert (certificate.label, certificate.radius) == ({row['predicted']}, {row['radius']!r})"
        )
        return Check(f"{image}{call}\n{said}", imports, self._execution, self._command)

    @property
    def _settings(self) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = self.evaluation.metadata["certification"]
        return settings

    @property
    def _goals(self) -> dict[str, Any]:
        """The options that are not the usual ones, of those that rules with a fixed number of samples do not take."""
        settings = self._settings
        return {name: settings[name] for name, usual in _GOALS.items() if settings.get(name, usual) != usual}

    @property
    def _place(self) -> str:
        data = self.evaluation.metadata["data"]
        return " ".join(part for part in (data["name"], data["split"]) if part)

    @property
    def _inputs(self) -> int:
        return int(self.evaluation.summary["inputs"])

    @property
    def _method(self) -> str:
        """The one that is the model's own."""
        return DUAL if DUAL in self._settings["methods"] else next(iter(self._settings["methods"]))

    @cached_property
    def _row(self) -> dict[str, Any]:
        """The certificate that is reproduced: of those that hold, or else of all, one of middling radius."""
        rows = self.evaluation.table.filter(method=self._method)
        certified = rows.filter(~rows["abstained"])
        rows = (certified if len(certified) else rows).sort("radius", "idx")
        return rows.row(len(rows) // 2, named=True)

    @property
    def _execution(self) -> dict[str, Any]:
        """How the model is to be loaded, as far as it was not loaded as usual, or is not known."""
        command = self.evaluation.metadata["info"].get("command", {})
        usual: Mapping[str, object] = {**USUAL}
        known = {name: command[name] for name in Execution.__annotations__ if name in command}
        return {name: value for name, value in known.items() if value != usual[name]}

    @property
    def _command(self) -> str:
        """The options of ``dualrs certify`` that make the run again, as far as they are known."""
        settings, command = self._settings, self.evaluation.metadata["info"].get("command", {})
        data = self.evaluation.metadata["data"]["name"]
        words = ["--data", data if data in _known_data() else "folder:images"]  # no paths
        for name in ("images", "skip"):
            if command.get(name) is not None:
                words += [f"--{name}", str(command[name])]
        for name in ("n0", "n", "alpha", "seed"):
            words += [f"--{name}", str(settings[name])]
        for name in ("tolerance", "target"):
            if name in self._goals:
                words += [f"--{name}", str(self._goals[name])]
        for name in ("arithmetic", "batch_size"):
            if name in self._execution:
                words += [f"--{name.replace('_', '-')}", str(self._execution[name])]
        return " ".join(map(quote, words))

    def _table(self) -> str:
        summary = self.evaluation.summary
        shares: Mapping[str, Mapping[str, float]] = summary["certified_accuracy"]
        keys = [radius_key(radius) for radius in STANDARD_RADII]
        low, high = certified_accuracy_interval(self.evaluation.table, np.array(STANDARD_RADII))[self._method]
        rows = [["r", *keys, "ACR", "abstained"]]
        for method, at in shares.items():
            name = "*oracle σ, no classifier*" if method == ORACLE else markdown(method)
            rows.append(
                [
                    f"**{name}**" if method == self._method else name,
                    *(f"{100 * at[key]:.1f}" for key in keys),
                    f"{summary['average_certified_radius'][method]:.3f}",
                    f"{100 * summary['abstention_rate'][method]:.1f} %",
                ]
            )
            if method == self._method:
                interval = [f"{100 * a:.1f}–{100 * b:.1f}" for a, b in zip(low, high, strict=True)]
                rows.append(["95 % interval", *interval, "", ""])
        return markdown_table(rows, right=len(keys) + 2)


def _known_data() -> set[str]:
    return {info.name for info in available()}
