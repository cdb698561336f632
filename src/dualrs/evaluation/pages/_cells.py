"""A table of figures, and how it is written in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dualrs.evaluation.metrics import Interval

DASH = "–"
"""What stands where there is no figure."""

_LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "σ": r"$\sigma$",
    "α": r"$\alpha$",
    "Δ": r"$\Delta$",
    "ℓ₂": r"$\ell_2$",
    "‖δ‖ ≤": r"$\|\delta\| \leq$",
    "R_c": "$R_c$",
    "R_σ": r"$R_\sigma$",
    "p_A": "$p_A$",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
}
_LATEX_SIGNS = re.compile("|".join(map(re.escape, sorted(_LATEX, key=len, reverse=True))))
_MARKDOWN = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;",
    **{sign: rf"\{sign}" for sign in "\\|*_`[]$"},
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes:
        text: as people read it.
        value: as machines do, with all digits; None where there is no figure.
        interval: the ends of its 95 % interval, in the units of the value.
        within: the interval as people read it.
        strong: set apart from others of its column; what that means is in the table's note.
    """

    text: str
    value: float | str | None
    interval: Interval | None = None
    within: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, the first of which names the row.

    Attributes:
        name: the files' stem.
        title: what it shows, and in which units.
        note: what else one must know to read it; may be empty.
        columns: for each its key in CSV and its heading.
        rows: of as many cells as there are columns.
    """

    name: str
    title: str
    note: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]


def word(text: str) -> Cell:
    """Gives the cell of a name."""
    return Cell(text, text)


def number(value: float | None, form: str = "z,.0f", interval: Interval | None = None, *, strong: bool = False) -> Cell:
    """Gives the cell of a figure in the form of a format specification; a dash where it is None."""
    if value is None:
        return Cell(DASH, None)
    return Cell(_signed(format(value, form)), value, interval, _between(interval, 1, form), strong)


def percent(share: float | None, interval: Interval | None = None, form: str = "z.1f", *, strong: bool = False) -> Cell:
    """Gives the cell of a share in [−1, 1] as percent, or of a difference of shares as points."""
    if share is None:
        return Cell(DASH, None)
    return Cell(_signed(format(100 * share, form)), share, interval, _between(interval, 100, form), strong)


def stacked(parts: Sequence[tuple[str, Table]]) -> Table:
    """Gives the tables of several runs as one, with the run's name first; of one run, its table as it is."""
    if len(parts) == 1:
        return parts[0][1]
    rows = tuple((word(run), *row) for run, table in parts for row in table.rows)
    return replace(parts[0][1], columns=(("run", "run"), *parts[0][1].columns), rows=rows)


def is_text(table: Table, column: int) -> bool:
    """Tells whether a column holds words, which are set to the left."""
    return all(isinstance(row[column].value, str) for row in table.rows)


def markdown(table: Table) -> str:
    """Writes the table in Markdown, intervals left out."""
    lines = [
        [_for_markdown(heading) for _, heading in table.columns],
        ["---" if is_text(table, column) else "--:" for column in range(len(table.columns))],
        *([_marked(cell, "**{}**", _for_markdown) for cell in row] for row in table.rows),
    ]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    parts = (_for_markdown(table.title), rows, _for_markdown(table.note))
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(table: Table) -> str:
    """Writes the table in LaTeX for the package booktabs, intervals left out; title and note are comments above it."""
    about = [f"% {' '.join(line.split())}" for line in (table.title, table.note) if line]
    align = "".join("l" if is_text(table, column) else "r" for column in range(len(table.columns)))
    head = [_for_latex(heading) for _, heading in table.columns]
    rows = [[_marked(cell, r"\textbf{{{}}}", _for_latex) for cell in row] for row in table.rows]
    lines = [f"\\begin{{tabular}}{{{align}}}", r"\toprule", _latex_row(head), r"\midrule"]
    return "\n".join([*about, *lines, *map(_latex_row, rows), r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(table: Table) -> str:
    """Writes the table as CSV with all digits, and the ends of intervals in columns of their own."""
    ranged = [any(row[column].interval for row in table.rows) for column in range(len(table.columns))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [name for (key, _), ends in zip(table.columns, ranged, strict=True) for name in _names(key, ends=ends)]
    )
    for row in table.rows:
        writer.writerow([value for cell, ends in zip(row, ranged, strict=True) for value in _values(cell, ends=ends)])
    return text.getvalue()


def _names(key: str, *, ends: bool) -> list[str]:
    return [key, f"{key}_low", f"{key}_high"] if ends else [key]


def _values(cell: Cell, *, ends: bool) -> list[float | str | None]:
    return [cell.value, *(cell.interval or (None, None))] if ends else [cell.value]


def _between(interval: Interval | None, scale: float, form: str) -> str:
    """The interval in words, nothing where it has no width to be seen."""
    if interval is None:
        return ""
    low, high = (_signed(format(scale * end, form.removeprefix("+"))) for end in interval)
    if low == high:
        return ""
    return f"{low}, {high}" if form.startswith("+") else f"{low}–{high}"


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _marked(cell: Cell, strong: str, escape: Callable[[str], str]) -> str:
    return strong.format(escape(cell.text)) if cell.strong else escape(cell.text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _for_latex(text: str) -> str:
    return _LATEX_SIGNS.sub(lambda sign: _LATEX[sign.group()], " ".join(text.split()))


def _for_markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(sign, sign) for sign in " ".join(text.split()))
