"""Tables of the documentation from the committed records; ``--check`` only compares.

Between ``<!-- table: NAME -->`` and ``<!-- /table -->`` in a page of docs/ stands what the function NAME here gives.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "results"
SECTION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(\n<!-- /table -->)", re.DOTALL)
RADII = ("0.00", "0.25", "0.50", "0.75", "1.00", "1.50", "2.00")


def modes() -> str:
    """What each goal costs and finds, on the shares of the classes that were recorded."""
    names = {
        "min rule": '`rule="min"`, as published',
        "full": "routed, full (the default)",
        "tolerance 0.05": "routed, `tolerance=0.05`",
        "target 0.5": "routed, `target=0.5`",
        "prediction": "`predict`",
    }
    rows = []
    for data in ("cifar10", "fashion-mnist"):
        found = _record("replay.json")["data"][data]["methods"]
        for name, title in names.items():
            method = found[name]
            votes, radius = f"{method['samples']:,.0f}", f"{method['average_radius']:.3f}"
            rows.append([data, title, votes, f"{method['ratio']:.2f}", radius, f"{100 * method['abstained']:.0f} %"])
    return _table(["model", "mode", "votes/input", "to plain", "ACR", "abstained"], rows)


def sigmas() -> str:
    """The ablation over Σ: the routed rule with small estimators."""
    rows = []
    for name, title in (
        ("baseline", "{0.25, 0.5, 1}"),
        ("sigmas-0.25-0.5", "{0.25, 0.5}"),
        ("sigmas-0.25-1", "{0.25, 1}"),
        ("sigmas-0.5-1", "{0.5, 1}"),
    ):
        routed = _record(f"ablations/rows/{name}.json")["routed"]
        rows.append([title, *_accuracies(routed["certified_accuracy"]), f"{routed['average_certified_radius']:.3f}"])
    references = _record("ablations/references.json")
    for method, title in (("global-0.5", "σ = 0.5 alone (the best one)"), ("oracle", "*oracle of three*")):
        accuracy = _accuracies(references["certified_accuracy"][method])
        rows.append([title, *accuracy, f"{references['average_certified_radius'][method]:.3f}"])
    return _table(["Σ", *RADII, "ACR"], rows)


def rules() -> str:
    """Routed and min rule of the shipped models, on the same votes."""
    rows = []
    for run in ("curves-cifar10", "curves-fashion-mnist"):
        summary = _record(f"{run}/summary.json")
        for method, title in (("dual", "routed"), ("dual-min", "min")):
            accuracy = _accuracies(summary["certified_accuracy"][method])
            acr, abstained = summary["average_certified_radius"][method], summary["abstention_rate"][method]
            rows.append([run.removeprefix("curves-"), title, *accuracy, f"{acr:.3f}", f"{100 * abstained:.0f} %"])
    return _table(["model", "rule", *RADII, "ACR", "abstained"], rows)


def estimators() -> str:
    """The shipped estimator, and one trained as in the paper, with the same experts."""
    rows = []
    for run, title in (("curves-cifar10", "utility and dial (shipped)"), ("curves-cifar10-soft", "as in the paper")):
        summary = _record(f"{run}/summary.json")
        for method, rule in (("dual", "routed"), ("dual-min", "min")):
            accuracy = _accuracies(summary["certified_accuracy"][method])
            acr = summary["average_certified_radius"][method]
            rows.append([title, rule, f"{summary['inputs']:,}", *accuracy, f"{acr:.3f}"])
    return _table(["estimator", "rule", "images", *RADII, "ACR"], rows)


def speed() -> str:
    """Votes per second against other programs, as ratios of one run."""
    models = _record("throughput.json")["models"]
    titles = {
        "engine / bare": "dualrs ÷ the bare network",
        "engine / ART": "dualrs ÷ the Adversarial Robustness Toolbox",
        "engine / plain loop": "dualrs ÷ a plain loop in PyTorch",
        "exact / float noise": "exact noise ÷ float noise",
    }
    rows = []
    for name, title in titles.items():
        ratios = [model["ratios"][name] for model in models.values()]
        rows.append([title, *(f"{r['median']:.2f} ({r['least']:.2f} to {r['most']:.2f})" for r in ratios)])
    return _table(["votes per second", *models], rows)


def denoised() -> str:
    """A clean classifier under noise, alone and behind a denoiser."""
    rows = []
    for name, title in (("classifier", "alone"), ("classifier-behind-denoiser", "behind a denoiser")):
        record = _record(f"denoised-cifar10/{name}.json")
        summary = record.get("summary", record)
        accuracy = next(iter(summary["certified_accuracy"].values()))
        rows.append([title, *(f"{100 * accuracy[r]:.1f}" for r in ("0.00", "0.25", "0.50"))])
    return _table(["the classifier, σ = 0.25", "r = 0.00", "0.25", "0.50"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "modes": modes,
    "sigmas": sigmas,
    "rules": rules,
    "estimators": estimators,
    "speed": speed,
    "denoised": denoised,
}


def updated(text: str) -> str:
    """A page with every table made anew."""
    return SECTION.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[3]}", text)


def _record(name: str) -> Any:
    return json.loads((RECORDS / name).read_text(encoding="utf-8"))


def _accuracies(shares: dict[str, float]) -> list[str]:
    return [f"{100 * shares[r]:.1f}" for r in RADII]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    numeric = [all(row[i].lstrip("*-")[:1].isdigit() for row in rows) for i in range(len(head))]
    lines = [head, ["--:" if is_number else "---" for is_number in numeric], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Writes the tables, or says which pages are out of date."""
    stale = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        new = updated(text)
        if new != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"tables are out of date in {', '.join(stale)}: run python scripts/docs_tables.py")


if __name__ == "__main__":
    main()
