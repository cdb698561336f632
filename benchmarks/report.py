"""Renders benchmarks/README.md from the records in benchmarks/results; ``--check`` only compares.

A record is a JSON file; its section is the function in `SECTIONS` under the name of the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
README = FOLDER / "README.md"

Record = Mapping[str, Any]

HEADER = """# Benchmarks

Measured by `make benchmark`, which also writes this page; the records are in [results](results/). Only ratios travel
from one machine to another.
"""


def throughput(record: Record) -> str:
    """Votes per second of every way, by model, and the ratios that have targets."""
    settings, models = record["settings"], record["models"]
    ways = list(dict.fromkeys(way for model in models.values() for way in model["votes_per_second"]))
    rates = [
        [
            way,
            *(
                _or_dash(model["votes_per_second"].get(way), lambda r: f"{r['median']:,.0f}")
                for model in models.values()
            ),
        ]
        for way in ways
    ]
    names = list(dict.fromkeys(name for model in models.values() for name in model["ratios"]))
    ratios = [
        [name, *(_ratio(model["ratios"][name]) for model in models.values()), _target(models, name)] for name in names
    ]
    data = ", ".join(f"of {model['data']} for {name}" for name, model in models.items())
    return paragraphs(
        f"Votes per second on one network, σ = {settings['sigma']:g}, {settings['threads']} threads, medians of "
        f"{settings['repeats']} interleaved runs of {settings['votes']:,} votes per image, images {data}. The "
        f"shipped experts run; *bare* is the network on one batch of {settings['batch_size']} without noise.",
        table(["votes per second", *models], rates),
        "Ratios are medians over the turns, with the least and the most; *engine* is dualrs with float noise, ART is "
        "the Adversarial Robustness Toolbox at the better of its batch sizes.",
        table(["ratio", *models, "target"], ratios),
    )


def memory(record: Record) -> str:
    """Peak memory by rule and number of votes."""
    rows = []
    for rule, found in record["rules"].items():
        peaks = [
            f"{run['peak'] / 2**20:,.0f} MiB (+{(run['peak'] - run['before']) / 2**20:.1f})"
            for run in found["runs"].values()
        ]
        rows.append([f"`{rule}`", *peaks, f"{found['ratio']:.3f}", f"≤ {found['target']:g}"])
    counts = [f"n = {n:,}" for n in record["settings"]["counts"]]
    shape = " × ".join(map(str, record["settings"]["shape"]))
    return paragraphs(
        f"Peak resident memory of a process that certifies one {shape} image, all libraries included; in brackets what "
        "came on top of a run with 1,000 votes before it.",
        table(["", *counts, "ratio", "target"], rows),
    )


def sequences(record: Record) -> str:
    """Expected votes to a decision, and what is left of the bounds at the cap."""
    settings, found = record["settings"], record["sequences"]
    probabilities = list(next(iter(found.values()))["decisions"])
    votes, bounds = [], []
    for p in probabilities:
        decisions = [kind["decisions"][p] for kind in found.values()]
        decided = [f"{d['expected']:,.0f} ({100 * (d['yes'] + d['no']):.1f} %)" for d in decisions]
        votes.append([p, "yes" if float(p) > settings["p0"] else "no", *decided])
        ends = [kind["at_cap"][p] for kind in found.values()]
        bounds.append([p, f"{ends[0]['fixed']:.5f}", *(_bound(end) for end in ends)])
    return paragraphs(
        f"Expected votes until it is known, at level {settings['level']:g}, whether p exceeds Φ(1) = "
        f"{settings['p0']:.4f}, with the share of runs that know it by {settings['cap']:,}; computed exactly.",
        table(["p", "answer", *found], votes),
        f"Lower bounds after {settings['cap']:,} votes with the expected successes, and the radius as a share of the "
        "one by the bound of fixed length (Clopper and Pearson).",
        table(["p", "fixed length", *found], bounds),
    )


def cost(record: Record) -> str:
    """Votes and seconds of every method, by data set, relative to plain smoothing."""
    settings = record["settings"]
    parts = [
        f"The dual model against plain smoothing with one expert (σ = {settings['sigma']:g}), n = {settings['n']:,}, "
        f"α = {settings['alpha']:g}. Every method drew its own votes; groups of {settings['group']} inputs were "
        "certified by each method in turn. Fill rate is the share of network rows that were asked for."
    ]
    for name, found in record["data"].items():
        rows = [
            [
                method,
                f"{one['votes']:,.0f}",
                f"{one['votes_ratio']:.2f}",
                f"{one['seconds']:.2f}",
                f"{one['seconds_ratio']:.2f}",
                f"{100 * one['fill_rate']:.1f} %",
            ]
            for method, one in found["methods"].items()
        ]
        parts += [
            f"{name}, {found['images']} test images:",
            table(["", "votes/input", "to plain", "s/input", "to plain", "fill rate"], rows),
        ]
    return paragraphs(*parts)


def replay(record: Record) -> str:
    """What goals save and lose, and what other divisions of α would give."""
    settings = record["settings"]
    parts = [
        f"A simulation at n = {settings['n']:,}: the class shares recorded by the runs below are taken for each "
        "input's probabilities, and procedures are replayed on the same votes. Accuracies are certified accuracies in "
        "percent, their mean over r = 0, 0.25 … 2.5."
    ]
    for name, found in record["data"].items():
        rows = [
            [
                method,
                f"{one['samples']:,.0f}",
                f"{one['ratio']:.2f}",
                f"{one['average_radius']:.3f}",
                f"{_mean(one['accuracy']):.2f}",
                f"{100 * one['abstained']:.1f} %",
            ]
            for method, one in found["methods"].items()
        ]
        base = found["shares"]["as shipped"]
        divisions = [
            [
                division,
                f"{one['average_radius'] - base['average_radius']:+.4f}",
                f"{one['accuracy'] - base['accuracy']:+.2f}",
                f"{one['samples'] / base['samples'] - 1:+.1%}",
            ]
            for division, one in found["shares"].items()
        ]
        parts += [
            f"{name}, {found['inputs']} inputs:",
            table(["", "votes/input", "to plain", "ACR", "accuracy", "abstained"], rows),
            f"The target decides as the full cap does on {100 * found['same_decision']:.1f} % of inputs; the tolerance "
            f"loses {found['tolerance_loss']:.2f} points of certified accuracy on average; below R = 2.5 σ_e no input "
            f"loses more than {found['largest_loss_to_min']:.3f} against the min rule. Other divisions of α:",
            table(["", "ACR", "accuracy", "votes"], divisions),
        ]
    return paragraphs(*parts)


def forecast(record: Record) -> str:
    """What forecasts say against what the runs took."""
    settings, rows = record["settings"], []
    turns = [turn for ways in record["ways"].values() for way in ways.values() for turn in way]
    for model, ways in record["ways"].items():
        for way, found in ways.items():
            ratios = ([one[what] / one[f"{what}_found"] for one in found] for what in ("votes", "seconds"))
            radii = (_mean([one[what] for one in found]) for what in ("average_radius", "average_radius_found"))
            rows.append(
                [
                    f"{model}: {way}",
                    f"{found[0]['images']}",
                    *(f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in ratios),
                    " for ".join(f"{radius:.3f}" for radius in radii),
                ]
            )
    inside = sum(one["votes_ends"][0] <= one["votes_found"] <= one["votes_ends"][1] for one in turns)
    memory = ", ".join(f"{one['forecast'] / one['found']:.2f} for {model}" for model, one in record["memory"].items())
    return paragraphs(
        f"Forecast divided by fact: `dualrs.evaluation.forecast` from {settings['sample']} images at most, and the run "
        f"of the same images right after it, in {settings['turns']} turns on other images each: medians, the least and "
        f"the most, and mean radii. α = {settings['alpha']:g}, without the start-up. What else the machine does "
        f"changes between the two, and moves the seconds alone. {_priority(record)}".rstrip(),
        table(["", "images", "votes", "seconds", "mean radius"], rows),
        f"The votes of {inside} of the {len(turns)} runs lie between the ends that their forecasts gave for 95 %. "
        f"The peak memory that `dualrs plan` tells, divided by that of `dualrs certify`: {memory}.",
    )


def distributed(record: Record) -> str:
    """A second worker, the cost of scheduling, the driver's memory, and a thousand simulated devices."""
    targets, rows = record["targets"], []
    if part := record.get("speedup"):
        settings, ratios = part["settings"], part["ratios"]
        what = f"two workers ÷ one, {settings['images']} images, n = {settings['n']:,}, a processor each"
        found = f"{part['median']:.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([what, found, f"≥ {targets['speedup']:g}: {_met(part['median'] >= targets['speedup'])}"])
    if part := record.get("overhead"):
        settings = part["settings"]
        what = f"time not spent in tasks, {settings['tasks']:,} of {1000 * settings['seconds']:g} ms on two workers"
        overhead = f"≤ {targets['overhead']:.0%}: {_met(part['overhead'] <= targets['overhead'])}"
        rows.append([what, f"{part['overhead']:.1%}", overhead])
    if part := record.get("memory"):
        for run in part["runs"].values():
            met = _met(run["peak"] < targets["memory"])
            what = f"the driver's peak memory, {run['inputs']:,} inputs (libraries included)"
            rows.append([what, f"{run['peak'] / 10**9:.2f} GB", f"< {targets['memory'] / 10**9:g} GB: {met}"])
    if part := record.get("simulation"):
        settings = part["settings"]
        what = f"utilisation of {settings['devices']:,} devices, {settings['inputs']:,} inputs, simulated"
        met = _met(part["utilisation"] >= targets["utilisation"])
        rows.append([what, f"{part['utilisation']:.1%}", f"≥ {targets['utilisation']:.0%}: {met}"])
    simulated = record["simulation"]["settings"]
    return paragraphs(
        "Certification on a Ray cluster that is started for the measurement on the machine itself. Other work there "
        "makes ratios of two workers to one uncertain, so their range is given.",
        table(["", "found", "target"], rows),
        f"The simulation uses the dispatcher itself, seconds per image as recorded on CIFAR-10 "
        f"({simulated['task_seconds']['mean']:.1f} s on average), devices of which a quarter is twice as fast and a "
        f"quarter half as fast, one failure in {simulated['hours_between_failures']:g} hours of each, "
        f"{simulated['seconds_to_replace']:g} s until it is replaced, and {1000 * simulated['driver_seconds']:.2f} ms "
        f"of the driver for every answer, as measured. In {record['simulation']['hours'] * 60:.0f} minutes "
        f"{record['simulation']['failures']} devices failed.",
    )


def serving(record: Record) -> str:
    """Many clients of a service: what they were answered, how fast, and what became of the service."""
    settings, targets = record["settings"], record["targets"]
    before, after = record["offline_votes_per_second"]
    health, memory, statuses = record["healthz_seconds"], record["memory_bytes"], record["statuses"]
    others = sum(count for status, count in statuses.items() if status not in ("200", "429"))
    failed = others + sum(record["errors"].values())
    answered, same = record["answered"], record["found_again_offline"]
    rows = [
        ["throughput ÷ the library's", f"{record['throughput']:.2f}", _at_least(record, "throughput")],
        ["`/healthz`, 99 % within", f"{1000 * health['p99']:.0f} ms", _at_most(health["p99"], targets["healthz_p99"])],
        [
            "memory, second half ÷ first − 1",
            f"{record['memory_growth']:+.1%}",
            _at_most(record["memory_growth"], targets["memory_growth"]),
        ],
        ["answered certificates found again offline", f"{same:,} of {answered:,}", f"all: {_met(same == answered)}"],
        ["errors other than 429", f"{failed:,}", f"0: {_met(failed == 0)}"],
    ]
    return paragraphs(
        f"{settings['clients']} clients on the same machine ask `dualrs serve {settings['model']}` for "
        f"{settings['seconds']:g} s, each for one certificate after the other (n = {settings['n']:,}, full mode), and "
        f"come back when they are told. {settings['active']} inputs share the engine, {settings['waiting']} wait. The "
        "library certifies images of the same data by `certify_batch`, before and after. Clients, service and the "
        "measurement share the processors, so the clients' work counts against the service.",
        table(["", "found", "target"], rows),
        f"{record['votes_per_second']:,.0f} votes/s against {before:,.0f} and {after:,.0f} offline; an answer took "
        f"{record['latency_seconds']['median']:.1f} s (median), at most {record['latency_seconds']['largest']:.1f} s; "
        f"{statuses.get('429', 0):,} requests were told to come back. `/healthz` took {1000 * health['median']:.0f} ms "
        f"(median), at most {1000 * health['largest']:.0f} ms. Memory went from {memory['first'] / 10**9:.2f} to "
        f"{memory['last'] / 10**9:.2f} GB.",
    )


def analysis(record: Record) -> str:
    """Seconds and memory of analysing results tables, by step."""
    runs, targets = list(record["runs"].values()), record["settings"]["targets"]
    steps = list(runs[0]["seconds"]["wall"])
    seconds = [sum(run["seconds"]["wall"].values()) for run in runs]
    rows = [[step, *(f"{run['seconds']['wall'][step]:.2f} s" for run in runs)] for step in steps]
    within = [f"< {most:g} s: {_met(found < most)}" for found, most in zip(seconds, targets["seconds"], strict=True)]
    rows += [
        ["all", *(f"{found:.1f} s" for found in seconds)],
        ["target", *within],
        ["peak memory", *(f"{run['peak'] / 10**9:.2f} GB" for run in runs)],
        ["target", *(f"< {targets['peak'] / 10**9:g} GB: {_met(run['peak'] < targets['peak'])}" for run in runs)],
    ]
    return paragraphs(
        "A table of " + ", ".join(record["settings"]["methods"]) + " is read, the oracle added, everything summarised, "
        "two methods compared, one exported as a log and read again. Memory is the peak of the process, libraries "
        f"included. {_priority(record)}",
        table(["step", *(f"{run['rows']:,} rows" for run in runs)], rows),
    )


def reporting(record: Record) -> str:
    """Seconds and memory of `dualrs report`, by the size of the run."""
    rows = []
    for name, found in record["cases"].items():
        seconds, most = found["targets"]["seconds"], found["targets"]["peak"]
        rows.append(
            [
                name,
                f"{found['seconds']:.1f} s",
                f"< {seconds:g} s: {_met(found['seconds'] < seconds)}",
                f"{found['peak'] / 10**9:.2f} GB",
                "–" if most is None else f"< {most / 10**9:g} GB: {_met(found['peak'] < most)}",
                f"{found['page'] / 10**6:.1f} MB",
            ]
        )
    return paragraphs(
        "`dualrs report` of one run: read, aggregated, and rendered as a page with six figures and all tables. "
        f"{_priority(record)}",
        table(["run", "seconds", "target", "peak memory", "target", "page"], rows),
    )


def writing(record: Record) -> str:
    """The share of a run's time that goes into its files."""
    settings, seconds = record["settings"], record["processor"]
    share, target = (seconds["parts"] + seconds["end"]) / seconds["run"], settings["target"]
    return paragraphs(
        f"{settings['images']} images of {settings['model']}, n = {settings['n']:,}: of {seconds['run']:.0f} s of the "
        f"processor, {seconds['parts']:.2f} s went into writing results as they came and {seconds['end']:.2f} s at the "
        f"end, {100 * share:.2f} % together; target < {100 * target:g} %: {_met(share < target)}. The picture of the "
        f"curves took another {seconds['curves']:.2f} s."
    )


SECTIONS: dict[str, tuple[str, Callable[[Record], str]]] = {
    "cost": ("Votes and seconds for an input", cost),
    "throughput": ("Throughput", throughput),
    "memory": ("Memory", memory),
    "sequences": ("Confidence sequences", sequences),
    "replay": ("Goals, and the division of α", replay),
    "forecast": ("Forecasts", forecast),
    "distributed": ("On a cluster", distributed),
    "serving": ("The service under load", serving),
    "analysis": ("Analysing results", analysis),
    "reporting": ("Rendering reports", reporting),
    "writing": ("Writing results", writing),
}
"""By the name of the record: the title of its section, and what renders it."""


def rendered() -> str:
    """The whole page, with a section for every record that there is."""
    parts = [HEADER]
    for name, (title, section) in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            parts.append(f"## {title}\n\n{section(record)}\n{machine_line(record['machine'])}")
    return "\n".join(parts)


def _at_least(record: Record, name: str) -> str:
    target = record["targets"][name]
    return f"≥ {target:g}: {_met(record[name] >= target)}"


def _at_most(found: float, target: float) -> str:
    return f"≤ {target:g}: {_met(found <= target)}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def machine_line(machine: Record) -> str:
    """What a record was made on."""
    software = {"Python" if name == "python" else name: version for name, version in machine["software"].items()}
    versions = ", ".join(f"{name} {version}" for name, version in software.items() if version)
    return (
        f"On {machine['cpu'] or machine['processor']}, {machine['cores']} cores, {machine['threads']} torch threads, "
        f"{machine['platform']}; {versions}.\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paragraphs(*texts: str) -> str:
    """Texts with an empty line between them."""
    return "\n\n".join(texts) + "\n"


def _ratio(found: Record) -> str:
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"


def _target(models: Record, name: str) -> str:
    targets = {model["ratios"][name].get("target") for model in models.values()}
    return _or_dash(targets.pop(), lambda target: f"≥ {target:g}")


def _bound(end: Record) -> str:
    return f"{end['lower']:.5f}" + (f" ({100 * end['radius_ratio']:.1f} %)" if "radius_ratio" in end else "")


def _met(within: bool) -> str:
    return "met" if within else "**missed**"


def _priority(record: Record) -> str:
    """A remark on a machine that was not idle."""
    machine = record["machine"]
    if (machine["load"] or 0) <= machine["cores"]:
        return ""
    preferred = ", to which this was preferred" if (machine.get("nice") or 0) < 0 else ""
    return f"Other work was under way (load {machine['load']:.0f}){preferred}."


def _or_dash(value: Any, shown: Callable[[Any], str]) -> str:
    return "–" if value is None else shown(value)


def main() -> None:
    """Writes the page, or with ``--check`` exits with 1 if it is stale."""
    new = rendered()
    if "--check" in sys.argv[1:]:
        old = README.read_text(encoding="utf-8") if README.is_file() else ""
        sys.exit(0 if new == old else "benchmarks/README.md is stale: run benchmarks/report.py")
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
