"""A diagnosis as tables for the terminal, within 100 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from dualrs.evaluation.doctor._figures import Diagnosis, Work, floored, percent
from dualrs.smoothing import ESTIMATOR


def render(diagnosis: Diagnosis) -> Table:
    """Shows a diagnosis within 100 columns: the figures, and below them the findings, problems first."""
    parts = [_speed_table(diagnosis)]
    if diagnosis.work is not None:
        parts.append(_work_table(diagnosis.work))
    parts.append(_cap_table(diagnosis))
    if diagnosis.sight:
        parts.append(_sight_table(diagnosis))
    page = Table.grid()
    for part in (*parts, _finding_table(diagnosis)):
        page.add_row(part)
        page.add_row()
    return page


def _speed_table(diagnosis: Diagnosis) -> Table:
    table = _table("speed", "", "σ", "backend", "device", "precision", "batch", "bare rows/s", "votes/s", "ratio")
    for base in diagnosis.bases:
        table.add_row(
            base.name,
            f"{base.sigma:g}",
            base.backend or "–",
            base.device or "–",
            base.precision or "–",
            f"{base.batch_size or '–'}",
            _number(base.bare_per_second),
            _number(base.votes_per_second),
            "refused" if base.ratio is None else percent(base.ratio),
        )
    return table


def _work_table(work: Work) -> Table:
    what = "made-up images" if work.made_up else "images"
    table = _table(f"certifying {work.inputs} {what} at once", "", "votes/input", "fill rate", "s/input")
    for name, votes in work.votes.items():
        table.add_row(name, f"{votes:,.0f}", percent(work.fill_rates[name]), "")
    total = f"{work.votes_per_input:,.0f}", percent(work.fill_rate), f"{work.seconds_per_input:.3g}"
    table.add_row("over all", *total, style="bold")
    return table


def _cap_table(diagnosis: Diagnosis) -> Table:
    sizes = sorted({cap.n for cap in diagnosis.caps})
    title = f"largest radius (unanimous votes), α = {diagnosis.alpha:g}"
    rules = (f"{rule}\nn = {n:,}" for n in sizes for rule in (diagnosis.rule, "cohen"))
    table = _table(title, "", "σ", *rules)
    for first in (cap for cap in diagnosis.caps if cap.n == sizes[0]):
        same = (cap for n in sizes for cap in diagnosis.caps if (cap.name, cap.n) == (first.name, n))
        cells = (floored(radius) for cap in same for radius in (cap.radius, cap.plain))
        table.add_row("choice of σ" if first.name == ESTIMATOR else first.name, f"{first.sigma:g}", *cells)
    return table


def _sight_table(diagnosis: Diagnosis) -> Table:
    title = f"accuracy on {diagnosis.sight[0].images} images of {diagnosis.data}, %"
    table = _table(title, "", "σ", "no noise", "one noise draw", "95 % interval", "most frequent answer")
    for each in diagnosis.sight:
        table.add_row(
            each.name,
            f"{each.sigma:g}",
            f"{100 * each.clean:.1f}",
            f"{100 * each.noisy:.1f}",
            " to ".join(f"{100 * end:.1f}" for end in each.interval),
            f"{each.answer} ({100 * each.answer_share:.1f})",
        )
    return table


def _finding_table(diagnosis: Diagnosis) -> Table:
    styles = {"problem": "bold red", "note": "yellow", "ok": "green"}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(max_width=90)
    for finding in diagnosis.findings:
        table.add_row(Text(finding.level, style=styles[finding.level]), Text(finding.text))
    return table


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
    for heading in headings:
        left = heading in {"", "backend", "device", "precision"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=True, min_width=0 if heading else 12)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
