"""Certified-accuracy curves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dualrs.evaluation.metrics import certified_accuracy, certified_accuracy_interval, methods_of
from dualrs.evaluation.table import DUAL, ORACLE, has_shared_sigmas, is_global
from dualrs.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette (2008), told apart with any common colour vision; the dashes do so in grey print.
_DUAL_COLOUR = "#0072B2"
_COLOURS = ("#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_DASHES: tuple[Any, ...] = ((0, (5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5, 1.2, 1.5)))
_GREY = "#7A7A7A"
_INK = "#333333"


def plot_curves(table: pl.DataFrame, path: str | Path, *, title: str, subtitle: str = "") -> Path:
    """Draws certified accuracy against the certified radius, one exact step curve per method.

    The dual method is drawn bold, with the pointwise 95 % interval of `certified_accuracy_interval`; the
    oracle, which is no classifier, is dashed grey.

    Args:
        table: a results table; without rows the axes stay empty.
        path: of the figure, replaced atomically; its suffix chooses the format (.png, .pdf, .svg).
        title: what is compared.
        subtitle: on what, with how many inputs and votes, at which α.

    Raises:
        ValueError: the suffix names no format that can be drawn.
    """
    path = Path(path)
    figure = _draw(table, title, subtitle)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"a figure is a .png, .pdf or .svg file; got {path.name!r}")
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=200)
    with atomic_write(path) as file:
        file.write(content.getvalue())
    return path


def _draw(table: pl.DataFrame, title: str, subtitle: str) -> Figure:
    from matplotlib.figure import Figure  # takes most of a second to import; `dualrs --help` does without it

    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axes = figure.add_subplot()
    longest = max(table.filter("correct")["radius"].to_list(), default=1.0) or 1.0
    methods = methods_of(table)
    # Later lines lie on top: the oracle at the back, the dual method in front. The legend keeps the table's order.
    drawn = {method: _draw_curve(axes, table, method, _style(method, methods)) for method in methods}
    if DUAL in methods:
        _draw_band(axes, table)
    _dress(axes, longest * 1.03)
    if drawn:
        order = sorted(methods, key=lambda method: (method != DUAL, method == ORACLE))
        axes.legend(
            [drawn[method] for method in order],
            [_name(method, methods) for method in order],
            facecolor="white",
            edgecolor="none",
            framealpha=0.9,
            loc="upper right",
            handlelength=3.2,
            labelcolor=_INK,
        )
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=25 if subtitle else 8)
    axes.annotate(subtitle, (0, 1), (0, 9), "axes fraction", "offset points", fontsize=9.5, color=_GREY)
    return figure


def _draw_curve(axes: Axes, table: pl.DataFrame, method: str, style: dict[str, Any]) -> Any:
    radii = _steps(table, method)
    (line,) = axes.plot(radii, certified_accuracy(table, radii)[method], drawstyle="steps-post", **style)
    return line


def _draw_band(axes: Axes, table: pl.DataFrame) -> None:
    radii = _steps(table, DUAL)
    low, high = certified_accuracy_interval(table, radii)[DUAL]
    axes.fill_between(radii, low, high, step="post", color=_DUAL_COLOUR, alpha=0.16, linewidth=0, zorder=1)


def _steps(table: pl.DataFrame, method: str) -> Any:
    """Where a curve falls: at each certified radius, since only a strictly larger one reaches it."""
    radii = table.filter((pl.col("method") == method) & pl.col("correct"))["radius"].to_numpy()
    return np.unique(np.append(radii, 0.0))


def _style(method: str, methods: list[str]) -> dict[str, Any]:
    if method == DUAL:
        return {"color": _DUAL_COLOUR, "linewidth": 2.6, "zorder": 4}
    if method == ORACLE:
        return {"color": _GREY, "linewidth": 1.3, "linestyle": (0, (3, 2)), "zorder": 2}
    number = [other for other in methods if other not in {DUAL, ORACLE}].index(method)
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linewidth": 1.6,
        "linestyle": _DASHES[number % len(_DASHES)],
        "zorder": 3,
    }


def _name(method: str, methods: list[str]) -> str:
    if method == DUAL:
        return "dual, with 95 % interval"
    if method == ORACLE:
        return f"oracle {'expert' if has_shared_sigmas(methods) else 'σ'} (knows the label)"
    if is_global(method):
        return f"σ = {method.removeprefix('global-')} for all"
    return f"dual, {method.removeprefix(f'{DUAL}-')} rule" if method.startswith(f"{DUAL}-") else method


def _dress(axes: Axes, longest: float) -> None:
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    axes.set_xlim(0, longest)
    axes.set_ylim(0, 1)
    axes.set_xlabel("certified radius (ℓ₂)", color=_INK)
    axes.set_ylabel("certified accuracy", color=_INK)
    axes.yaxis.set_major_locator(MultipleLocator(0.2))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")
    axes.tick_params(colors=_INK, length=0, labelsize=9.5, pad=5)
