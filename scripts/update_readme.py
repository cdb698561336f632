"""Writes the results of README.md from committed runs and bundles; ``--check`` only compares.

Between ``<!-- results:NAME -->`` and ``<!-- /results -->`` stands a table of ``benchmarks/results/curves-NAME``;
between ``<!-- output:NAME -->`` and ``<!-- /output -->`` what the command printed, ``docs/results/NAME/output.txt``;
between ``<!-- experts -->`` and ``<!-- /experts -->`` the accuracies that the shipped bundles record.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
RUNS = ROOT / "benchmarks" / "results"
SHIPPED = ROOT / "src" / "dualrs" / "shipped"
SECTION = re.compile(r"(<!-- (results|output|experts)(?::([\w.-]+))? -->\n).*?(<!-- /\2 -->)", re.DOTALL)
NAMES = {"dual": "dual, routed", "dual-min": "dual, min rule", "oracle": "*oracle σ*"}


def table(summary: Mapping[str, Any]) -> str:
    """The certified accuracies of a run in Markdown, the best single σ of each radius in bold."""
    accuracy = summary["certified_accuracy"]
    radii = list(accuracy["dual"])
    globals_ = [method for method in accuracy if method.startswith("global-")]
    best = {r: max(accuracy[method][r] for method in globals_) for r in radii}
    lines = [
        "| certified accuracy, %, at r = | " + " | ".join(radii) + " | ACR | abstained |",
        "|---" * (len(radii) + 3) + "|",
    ]
    for method, shares in accuracy.items():
        cells = [
            f"**{100 * shares[r]:.1f}**"
            if method in globals_ and shares[r] == best[r] > 0
            else f"{100 * shares[r]:.1f}"
            for r in radii
        ]
        name = NAMES.get(method, f"σ = {method.removeprefix('global-')}")
        acr, abstained = summary["average_certified_radius"][method], summary["abstention_rate"][method]
        lines.append(f"| {name} | {' | '.join(cells)} | {acr:.3f} | {100 * abstained:.0f} % |")
    return "\n".join(lines) + f"\n\n{remarks(summary)}\n"


def remarks(summary: Mapping[str, Any]) -> str:
    """What the run was, and what the estimator did, in two sentences."""
    about, estimator = summary["metadata"], summary["estimator"]
    settings, data = about["certification"], about["data"]
    shares = ", ".join(f"{100 * share:.0f} % σ = {sigma}" for sigma, share in estimator["sigma_shares"].items())
    votes = sum(model["votes"] for model in about["engine"].values())
    limited = estimator["limits_radius"]
    return (
        f"{summary['inputs']:,} test images of {data['name']}, n0 = {settings['n0']}, n = {settings['n']:,}, "
        f"α = {settings['alpha']:g}, seed {settings['seed']}; {votes:,} votes in {about['wall_seconds']:.0f} s. "
        f"The estimator chose {shares}, abstained on {100 * estimator['abstained']:.0f} %"
        + (f", and limits the radius of {100 * limited:.0f} % of the certificates." if limited is not None else ".")
    )


def experts() -> str:
    """The accuracy of every shipped expert under one noise draw per test image, in Markdown."""
    lines = ["| | " + " | ".join(f"σ = {sigma}" for sigma in ("0.25", "0.5", "1")) + " |", "|---|---|---|---|"]
    for path in sorted(SHIPPED.glob("*/model.json")):
        info = json.loads(path.read_text(encoding="utf-8"))["info"]
        cells = [f"{100 * info[f'expert-{s}']['test_accuracy_one_noise_draw'][s]:.1f} %" for s in ("0.25", "0.5", "1")]
        lines.append(f"| {path.parent.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def updated(text: str) -> str:
    """The README with everything generated made anew."""

    def fill(match: re.Match[str]) -> str:
        opening, kind, name, closing = match.groups()
        if kind == "experts":
            content = experts()
        elif kind == "output":
            content = f"```text\n{(RESULTS / name / 'output.txt').read_text(encoding='utf-8').rstrip()}\n```\n"
        else:
            content = table(json.loads((RUNS / f"curves-{name}" / "summary.json").read_text(encoding="utf-8")))
        return opening + content + closing

    return SECTION.sub(fill, text)


def main() -> None:
    """Updates README.md, or with ``--check`` exits with 1 if it is stale."""
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = updated(old)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if new == old else "README.md is stale: run scripts/update_readme.py")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
