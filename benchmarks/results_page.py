"""Renders docs/results.md from the records in benchmarks/results; ``--check`` only compares.

A section is there once its records are; where one belongs is marked in the page by a comment with its name.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations_rows import BASELINE, GROUPS, Group, rows
from report import RESULTS, Record, machine_line, paragraphs, table

from dualrs.evaluation import is_global

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
HEADER = """# Results

Written by `benchmarks/results_page.py` from the records in [benchmarks/results](../benchmarks/results/), none of it by
hand. How fast things are, and what certificates cost, is on the [page of benchmarks](../benchmarks/README.md).
"""
RADII = ("0.00", "0.25", "0.50", "0.75", "1.00", "1.50", "2.00")
"""Those that tables of many variants show; the records have all."""
_VARIANT_COLUMNS = (*RADII, "ACR", "Δ", "÷ oracle", "abstained", "limited", "chosen")
"""Of such a table, behind the variant's name; `_line` fills them."""
_METHODS = {"dual": "**dual, routed**", "dual-min": "dual, min rule", "oracle": "*oracle σ*"}


def ablations(folder: Path) -> str | None:
    """One table for each ablation, of the rows that are there."""
    found = {name: _read(folder / "rows" / f"{name}.json") for name in rows()}
    done = {name: record for name, record in found.items() if record is not None}
    reference = _read(folder / "references.json")
    if BASELINE.name not in done or reference is None:
        return None
    parts = [_scale(reference, done), _references(reference), _columns(reference)]
    for group in GROUPS:
        if any(row.name in done for row in group.rows):
            parts.append(_group(group, done))
    parts += ["### What the choice costs", _diagnostics(done), machine_line(done[BASELINE.name]["machine"])]
    return paragraphs(*(part.rstrip("\n") for part in parts))


def certified(summary: Record) -> str:
    """The certified accuracies of a run over a data set, as `dualrs certify` records it, and what its estimator did."""
    accuracy = summary["certified_accuracy"]
    radii = [r for r in next(iter(accuracy.values())) if any(shares[r] for shares in accuracy.values())]
    lines = [
        [
            _METHODS.get(method, method.replace("global-", "σ = ")),
            *(f"{100 * shares[r]:.1f}" for r in radii),
            f"{summary['average_certified_radius'][method]:.3f}",
            f"{100 * summary['abstention_rate'][method]:.0f} %",
        ]
        for method, shares in accuracy.items()
    ]
    if "dual" in accuracy:
        best = {r: max(shares[r] for method, shares in accuracy.items() if is_global(method)) for r in radii}
        lines += [
            [f"dual ÷ {title}", *(_ratio(accuracy["dual"][r], other[r]) for r in radii), "", ""]
            for title, other in (("best σ", best), ("oracle", accuracy["oracle"]))
        ]
    settings, data = summary["metadata"]["certification"], summary["metadata"]["data"]
    widest = max(high - low for one in summary["confidence_95"].values() for low, high in one.values())
    parts = [
        f"{summary['inputs']:,} test images of {data['name']}, n0 = {settings['n0']}, n = {settings['n']:,}, "
        f"α = {settings['alpha']:g}, all methods on the same votes. Certified accuracy in percent, with 95 % intervals "
        f"of up to ± {100 * widest / 2:.1f} points. ACR is the average certified radius.",
        table(["r =", *radii, "ACR", "abstained"], lines),
    ]
    if summary["estimator"]:
        estimator = summary["estimator"]
        chosen = ", ".join(f"{100 * share:.0f} % σ = {sigma}" for sigma, share in estimator["sigma_shares"].items())
        limited = estimator["limits_radius"]
        parts.append(
            f"The estimator chose {chosen}"
            + ("." if limited is None else f", and limits the radius of {100 * limited:.0f} % of the certificates.")
        )
        if estimator.get("choice_loss") and estimator.get("choice_slack"):
            parts.append(table(_QUANTILE_HEADER, [["dual, routed", *_quantiles(estimator, estimator)]]))
    return paragraphs(*parts)


def runs(folder: Path) -> str | None:
    """Every run in a folder that records certified accuracies, under its name."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"), key=lambda path: path.stem)
    }
    parts = [f"### {name}\n\n{certified(record)}" for name, record in found.items() if "confidence_95" in record]
    return "\n".join(parts) or None


def curves(folder: Path) -> str | None:
    """A run that is kept with its certificates and its picture."""
    summary = _read(folder / "summary.json")
    if summary is None:
        return None
    picture = f"![Certified accuracy against radius](../benchmarks/results/{folder.name}/curves.png)"
    replay, name = _read(folder.parent / "replay.json"), folder.name.removeprefix("curves-")
    more = [] if replay is None or name not in replay["data"] else [_replayed(replay, name)]
    return paragraphs(certified(summary).rstrip("\n"), picture, *more)


def _replayed(replay: Record, data: str) -> str:
    """The same inputs with more votes than there was time for."""
    settings, found = replay["settings"], replay["data"][data]
    methods = {"**dual, routed**": found["methods"]["full"]["accuracy"]}
    methods["dual, min rule"] = found["methods"]["min rule"]["accuracy"]
    methods |= {f"σ = {sigma}": accuracy for sigma, accuracy in found["global"].items()}
    methods["*oracle σ*"] = found["oracle"]
    dual, best = methods["**dual, routed**"], [max(one) for one in zip(*found["global"].values(), strict=True)]
    shown = [i for i, share in enumerate(found["oracle"]) if share]
    lines = [[title, *(f"{accuracy[i]:.1f}" for i in shown)] for title, accuracy in methods.items()]
    lines += [
        [f"dual ÷ {title}", *(_ratio(dual[i], other[i]) for i in shown)]
        for title, other in (("best σ", best), ("oracle", found["oracle"]))
    ]
    return paragraphs(
        f"With n = {settings['n']:,}, simulated: the shares of the classes among the votes above are taken for each "
        f"input's probabilities. Where all votes were alike that is too much, for every method. {found['inputs']:,} "
        "inputs, certified accuracy in percent:",
        table(["r =", *(f"{i / 4:.2f}" for i in shown)], lines).rstrip("\n"),
    ).rstrip("\n")


def dial(path: Path) -> str | None:
    """One estimator at several settings of its dial."""
    record = _read(path.with_suffix(".json"))
    if record is None:
        return None
    settings = record["settings"]
    lines = [
        _line(", ".join(f"{one:.2f}" for one in line["bias"]) + " (shipped)" * (line is record["lines"][0]), line)
        for line in record["lines"]
    ]
    return paragraphs(
        f"The same {settings['images']} test images and votes of the experts as in the ablations, with n = "
        f"{settings['n']:,}; the first column is the bias on the estimator's logits, σ ascending. Each setting was one "
        "of those that no other beat at all radii, on training images. The dial moves along the front between small "
        "and large radii; it does not push it out. Cells as below; Δ is to the shipped setting.",
        table(["bias", *_VARIANT_COLUMNS], lines).rstrip("\n"),
    )


SECTIONS: dict[str, tuple[str, Callable[[Path], str | None]]] = {
    "curves-cifar10": ("The shipped CIFAR-10 model", curves),
    "curves-cifar10-10000": ("The same model with ten times the votes", curves),
    "dial": ("The same model at other settings of its dial", dial),
    "curves-cifar10-soft": ("The same experts, the estimator trained as in the paper", curves),
    "curves-fashion-mnist": ("The shipped Fashion-MNIST model", curves),
    "ablations": ("Ablations of the variance estimator", ablations),
    "denoised-cifar10": ("Denoised smoothing", runs),
    "pool": ("A pool of experts", runs),
    "rounds": ("Rounds of fine-tuning", runs),
    "rounds-majority": ("Rounds of fine-tuning, each image for one expert", runs),
}
"""By the folder of the records: the title of the section, and what renders it, or gives None where there is nothing."""


def rendered(results: Path = RESULTS) -> str:
    """The whole page, with a section for all records that there are."""
    parts = [HEADER]
    for name, (title, section) in SECTIONS.items():
        content = section(results / name)
        parts.append(f"<!-- {name} -->\n" + ("" if content is None else f"\n## {title}\n\n{content}"))
    return "\n".join(parts)


def _scale(reference: Record, done: Mapping[str, Record]) -> str:
    settings = reference["settings"]
    seconds = [record["seconds"]["training"] + record["seconds"]["votes"] for record in done.values()]
    network = done[BASELINE.name]["estimator"]["network"]
    votes = settings["votes"]
    return (
        f"Small estimators, to compare variants and not to be good: the baseline is a {network['name']} of width "
        f"{network['width']}, trained from scratch for {BASELINE.epochs} epochs on {BASELINE.images:,} labelled images "
        f"of {settings['data']['name']}. One seed, unless said. The experts are those of the shipped model, and labels "
        f"have at most {settings['label_votes']['n']} votes for each σ. Every row is certified on the same "
        f"{settings['images']} test images, evenly spaced, with n0 = {settings['n0']}, n = {settings['n']:,}, "
        f"α = {settings['alpha']:g} and the same votes of the experts. No vote is simulated; networks voted in "
        f"{votes['precision']} ({votes['backend']}). A row took {statistics.median(seconds) / 60:.0f} minutes (median) "
        "of a core that may have had other work. `make ablations` runs the rows that have no record yet, and goes on "
        "where it was interrupted."
    )


def _references(reference: Record) -> str:
    average = reference["average_certified_radius"]
    lines = [
        [
            _METHODS.get(method, method.replace("global-", "σ = "))
            + (" (best)" * (method == reference["best_single"])),
            *(f"{100 * shares[r]:.0f}" for r in RADII),
            f"{average[method]:.3f}",
        ]
        for method, shares in reference["certified_accuracy"].items()
    ]
    return "What needs no estimator: one σ for all images, and the best σ of each image in hindsight.\n\n" + table(
        ["r =", *RADII, "ACR"], lines
    )


def _columns(reference: Record) -> str:
    intervals = ", ".join(
        f"{100 * float(share):.0f} % stands for {100 * low:.0f}–{100 * high:.0f} %"
        for share, (low, high) in reference["interval_95"].items()
    )
    return (
        "In the tables below a cell holds the routed rule and the min rule, in this order: certified accuracy in "
        "percent; the average certified radius (ACR), also as a share of the oracle's. Δ is the routed ACR less the "
        "baseline's, with its standard error over the images. *Abstained* is how often the min rule chose no σ, "
        "*limited* how many of its certificates the choice of σ limits, *chosen* how often the routed rule chose each "
        f"σ, ascending, in percent. With {reference['images']} images, an accuracy of {intervals} (95 %); rows share "
        "images and votes, so differences between them are less uncertain, but other seeds would train other "
        "estimators."
    )


def _group(group: Group, done: Mapping[str, Record]) -> str:
    lines = [_line(group.baseline, done[BASELINE.name])]
    lines += [_line(row.title, done[row.name]) for row in group.rows if row.name in done]
    header = ["", *_VARIANT_COLUMNS]
    parts = [f"### {group.title}", group.remark, table(header, lines)]
    means = [
        _mean_line(title, [done[name] for name in names])
        for title, names in group.seeds.items()
        if all(name in done for name in names)
    ]
    if means:
        parts += ["Mean ± standard deviation over the seeds:", table(["", *RADII, "ACR"], means)]
    return "\n\n".join(part for part in parts if part)


def _line(title: str, record: Record) -> list[str]:
    both, least = (record["routed"], record["min"]), record["min"]["estimator"]
    against = record["routed"]["against_baseline"]
    return [
        title,
        *(_pair(both, lambda rule, r=r: f"{100 * rule['certified_accuracy'][r]:.0f}") for r in RADII),
        _pair(both, lambda rule: f"{rule['average_certified_radius']:.3f}"),
        "–" if against is None else f"{against['average_certified_radius']:+.3f} ± {against['standard_error']:.3f}",
        _pair(both, lambda rule: _or_dash(rule["average_certified_radius_to_oracle"], ".2f")),
        f"{100 * least['abstained']:.0f} %",
        "–" if least["limits_radius"] is None else f"{100 * least['limits_radius']:.0f} %",
        " · ".join(f"{100 * share:.0f}" for share in record["routed"]["estimator"]["sigma_shares"].values()),
    ]


def _mean_line(title: str, records: Sequence[Record]) -> list[str]:
    def spread(values: Iterable[float], form: str) -> str:
        found = list(values)
        return f"{format(statistics.mean(found), form)} ± {format(statistics.stdev(found), form)}"

    cells = []
    for rule in ("routed", "min"):
        of_rule = [record[rule] for record in records]
        accuracy = [spread((100 * one["certified_accuracy"][r] for one in of_rule), ".1f") for r in RADII]
        average = spread((one["average_certified_radius"] for one in of_rule), ".3f")
        cells.append([*accuracy, average])
    return [title, *(" / ".join(pair) for pair in zip(*cells, strict=True))]


_QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
_QUANTILE_HEADER = ["", "ΔR_c mean", *(f"{100 * float(q):.0f} %" for q in _QUANTILES)]
_QUANTILE_HEADER += ["ΔR_σ mean", *(f"{100 * float(q):.0f} %" for q in _QUANTILES)]


def _diagnostics(done: Mapping[str, Record]) -> str:
    lines = [
        [row.title, *_quantiles(done[name]["routed"]["estimator"], done[name]["min"]["estimator"])]
        for name, row in rows().items()
        if name in done
    ]
    return paragraphs(
        "ΔR_c is what the choice of σ loses in the radius of the expert (the best expert's radius for the true class "
        "less the chosen one's; routed rule), and ΔR_σ the radius of the choice less that of the expert's answer (min "
        "rule): below 0 the choice limits the certificate. Mean and quantiles over the images.",
        table(_QUANTILE_HEADER, lines),
    )


def _quantiles(loss: Record, slack: Record) -> list[str]:
    cells = []
    for found in (loss["choice_loss"], slack["choice_slack"]):
        cells += [_or_dash(found and found[key], ".2f") for key in ("mean", *_QUANTILES)]
    return cells


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if theirs else "–"


def _pair(both: Iterable[Record], shown: Callable[[Record], str]) -> str:
    return " / ".join(shown(rule) for rule in both)


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main() -> None:
    """Writes the page, or with ``--check`` exits with 1 if it is stale."""
    new = rendered()
    if "--check" in sys.argv[1:]:
        old = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
        sys.exit(0 if new == old else "docs/results.md is stale: run benchmarks/results_page.py")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
