"""A forecast as tables for the terminal, within 80 columns at three radii."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import floor, log10

from rich import box
from rich.table import Table
from rich.text import Text

from dualrs.evaluation.planning._figures import Estimate, Forecast, Option
from dualrs.training.plan import duration

_BUSY = 1.5  # a pace from which on the machine is called busy


def render(forecast: Forecast) -> Table:
    """Shows a forecast: the work, the time on one device and on several, and what would save some of it."""
    page = Table.grid()
    page.add_row(Text("\n".join(_about(forecast))))
    for table in (_work(forecast), _devices(forecast), _options(forecast)):
        page.add_row()
        page.add_row(table)
    page.add_row()
    page.add_row(Text("\n".join(_remarks(forecast)), style="dim"))
    return page


def _about(forecast: Forecast) -> Iterator[str]:
    goals = [f"tolerance {forecast.tolerance:g}"] if forecast.tolerance else []
    goals += [] if forecast.target is None else [f"target {forecast.target:g}"]
    settings, methods = [f"n = {forecast.n:,}", f"α = {forecast.alpha:g}", *goals], ", ".join(forecast.methods)
    yield f"{forecast.images:,} of {forecast.size:,} images of {forecast.data}, {', '.join(settings)}: {methods}"
    yield (
        f"forecast from {forecast.sample_votes:,} votes of each base classifier on {forecast.sample:,} of the images, "
        f"measured in {duration(forecast.sample_seconds)}"
    )


def _work(forecast: Forecast) -> Table:
    table = _table("work", "", "σ", "votes/input", "votes", "votes/s", "time")
    for model in forecast.models:
        table.add_row(
            model.name,
            f"{model.sigma:g}",
            f"{model.votes_per_input:,.0f}",
            _rounded(model.votes),
            _rounded(model.votes_per_second),
            duration(model.seconds),
        )
    table.add_row("bounds, reading", "", "", "", "", duration(forecast.other_seconds))
    table.add_row("start-up", "", "", "", "", duration(forecast.startup_seconds))
    votes = forecast.votes.expected
    whole = f"{votes / forecast.images:,.0f}", _rounded(votes), "", duration(forecast.seconds.expected)
    table.add_row("over all", "", *whole, style="bold")
    return table


def _devices(forecast: Forecast) -> Table:
    used = sorted({model.device for model in forecast.models})
    priced = forecast.devices[0].cost is not None
    table = _table(
        f"devices like the one measured ({', '.join(used)})",
        "",
        "wall time",
        "95 % between",
        "device-hours",
        *(["cost", "95 % between"] if priced else []),
    )
    for each in forecast.devices:
        costs = [] if each.cost is None else [f"{each.cost.expected:.3g}", _ends(each.cost, lambda x: f"{x:.3g}")]
        table.add_row(
            f"{each.devices:,}",
            duration(each.wall_seconds.expected),
            _ends(each.wall_seconds, duration),
            f"{each.device_hours.expected:.3g}",
            *costs,
        )
    return table


def _options(forecast: Forecast) -> Table:
    radii = list(forecast.planned.certified_accuracy)
    title = "what would save, and what it loses" if len(forecast.options) > 1 else "what it will find"
    table = _table(
        f"{title}: mean radius and certified accuracy, %, of {forecast.method}",
        "",
        "votes",
        "time",
        "mean radius",
        *(f"r > {radius}" for radius in radii),
        "±",
    )
    for option in forecast.options:
        table.add_row(*_cells(option), style="bold" if option is forecast.planned else None)
    return table


def _cells(option: Option) -> Iterator[str]:
    yield option.change
    yield f"{100 * option.share_of_votes:,.0f} %"
    yield duration(option.seconds)
    yield f"{option.average_radius:.3f}"
    yield from (f"{100 * share:.1f}" for share in option.certified_accuracy.values())
    yield f"{100 * option.margin:.1f}"


def _remarks(forecast: Forecast) -> Iterator[str]:
    size, image = forecast.size, forecast.per_image_seconds
    known = f"An image takes {image:.3g} s"
    if size > forecast.images:
        known += f", all {size:,} of the data set would take {duration(image * size + forecast.startup_seconds)}"
    yield f"{known}; the costliest of the sample {forecast.longest_seconds:.3g} s on any number of devices."
    if forecast.further_sigma_seconds is not None:
        yield f"A further σ with a row of its own would add {duration(forecast.further_sigma_seconds)}."
    memory = forecast.memory
    on_device = "" if memory.device is None else f", and {_bytes(memory.device)} on the GPU"
    yield (
        f"Memory of a process: {_bytes(memory.peak)} at its peak{on_device} (measured so far: "
        f"{_bytes(memory.measured)}; summing up the results takes {_bytes(memory.results)})."
    )
    yield (
        f"Radii and accuracies are those of the {forecast.sample} images of the sample. All rows share images and "
        "votes, so their differences are known better than the figures themselves. ±: points, half the 95 % interval "
        "of a certified accuracy of 50 % on so many images."
    )
    reasons: dict[str, list[str]] = {}
    for option in forecast.options:
        if option.remark:
            reasons.setdefault(option.remark, []).append(option.change.strip())
    yield from (f"{', '.join(dict.fromkeys(changes))}: {remark}." for remark, changes in reasons.items())
    fastest, slowest = forecast.pace
    if slowest > _BUSY * fastest:
        yield (
            f"The machine seems to be busy: parts of the sample took between {fastest:.2f} and {slowest:.2f} times the "
            "mean time."
        )


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        pad_edge=False,
    )
    for number, heading in enumerate(headings):
        table.add_column(
            heading, justify="right" if number else "left", no_wrap=number > 0, min_width=0 if number else 8
        )
    return table


def _ends(estimate: Estimate, written: Callable[[float], str]) -> str:
    return f"{written(estimate.low)} and {written(estimate.high)}"


def _rounded(value: float) -> str:
    """Three digits: a forecast knows no more."""
    digits = max(0, floor(log10(value)) - 2) if value >= 1 else 0
    return f"{round(value, -digits):,.0f}"


def _bytes(size: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    power = min(len(units) - 1, max(0, floor(log10(max(size, 1)) / log10(1024))))
    return f"{size / 1024**power:.3g} {units[power]}"
