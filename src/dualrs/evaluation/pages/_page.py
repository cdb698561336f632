"""The page itself: one HTML file that holds everything it shows and asks nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import dualrs
from dualrs.evaluation.pages._audit import audit_in_words
from dualrs.evaluation.pages._canvas import Picture
from dualrs.evaluation.pages._cells import Table, is_text
from dualrs.evaluation.pages._facts import alarms_of, facts_of, guarantee_of, headline_of
from dualrs.evaluation.pages._inputs import inputs_of, listed_inputs
from dualrs.evaluation.pages._runs import Run
from dualrs.evaluation.pages._thumbnails import NoPicturesError, class_names, thumbnails_of
from dualrs.evaluation.style import BLUE, GREY, GRID, INK, PALE, SPINE, VERMILION, title_of

# The same figure on a dark page: matplotlib writes colours into attributes, some of which only !important overrides.
_DARK = {
    INK: "#d5d8dc",
    GREY: "#a3a9b2",
    PALE: "#565b64",
    GRID: "#31353c",
    SPINE: "#5c626b",
    BLUE: "#3f97d8",
    VERMILION: "#f0803c",
    "#ffffff": "#16181c",
}
_NIGHT = "".join(
    f'[style*="{what}: {light.lower()}"],[{what}="{light.lower()}"]{{{what}:{dark}!important}}'
    for light, dark in _DARK.items()
    for what in ("fill", "stroke")
)


@dataclass(frozen=True)
class Part:
    """What the page says of one run.

    Attributes:
        run: which.
        summary: of its table, as `summarize` gives it.
        tables: by name.
        pictures: by name.
    """

    run: Run
    summary: Mapping[str, Any]
    tables: Mapping[str, Table]
    pictures: Mapping[str, Picture]


@dataclass(frozen=True)
class Together:
    """What the page says of several runs together.

    Attributes:
        about: on which inputs they are compared.
        picture: their curves.
        tables: of all of them.
    """

    about: str
    picture: Picture
    tables: Sequence[Table]


def page_of(parts: Sequence[Part], differences: Table, together: Together | None, *, thumbnails: bool) -> str:
    """Gives the report as HTML that needs no other file and no network.

    Args:
        parts: one for each run.
        differences: of the first method to others.
        together: what is said of several runs; None for one.
        thumbnails: whether the inputs are shown as pictures, where their data set is here.
    """
    environment = Environment(
        loader=PackageLoader("dualrs.evaluation", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals.update(is_text=is_text, embedded=_embedded)
    environment.filters["subscripts"] = _subscripts
    first = parts[0].run
    runs = [part.run for part in parts]
    return environment.get_template("page.html.jinja").render(
        version=dualrs.__version__,
        title=f"Certified robustness on {first.of('data', 'name') or first.name}",
        style=_inline("page.css"),
        script=_inline("page.js"),
        guarantee=guarantee_of(runs),
        parts=[_shown(number, part) for number, part in enumerate(parts, 1)],
        comparison=together,
        differences=differences,
        inputs=_inputs(runs, thumbnails=thumbnails),
    )


def _shown(number: int, part: Part) -> dict[str, Any]:
    run = part.run
    return {
        "id": f"run-{number}",
        "run": run,
        "first": title_of(run.methods[0], run.methods),
        "headline": headline_of(run.methods[0], part.summary),
        "facts": facts_of(run),
        "alarms": alarms_of(run),
        "audit": audit_in_words(run),
        "tables": part.tables,
        "pictures": part.pictures,
        "record": json.dumps(run.metadata, indent=2, ensure_ascii=False),
    }


def _inputs(runs: Sequence[Run], *, thumbnails: bool) -> dict[str, Any]:
    idx, total = listed_inputs(runs), runs[0].inputs
    about = [f"The list has {'all ' if len(idx) == total else ''}{len(idx):,} inputs."]
    if len(idx) < total:
        about.append(f"They are evenly spaced among the {total:,} that were certified.")
    about.append("Radii are cut, never rounded up. The button at the end of a row shows every method on that input.")
    pictures = None
    if thumbnails:
        try:
            found = thumbnails_of(runs[0], idx)
        except NoPicturesError as reason:
            about.append(f"There are numbers only: {reason}")
        else:
            pictures = found.to_dict()
            if found.count < len(idx):
                about.append(f"The first {found.count:,} have a picture.")
    content = {**inputs_of(runs, idx), "classes": class_names(runs[0]), "pictures": pictures}
    return {"about": " ".join(about), "json": _json(content)}


def _json(content: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end one."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _subscripts(text: str) -> Markup:
    """R_c as it is printed in books."""
    return Markup(re.sub(r"(R|σ)_(c|σ|e)\b", r"\1<sub>\2</sub>", str(escape(text))))


def _inline(name: str) -> dict[str, Any]:
    """A file of this package, and its digest, by which the page's policy allows it and no other."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": Markup(text), "digest": f"sha256-{digest}"}


def _embedded(picture: Picture) -> str:
    """A figure as a data URI, which follows the page into the dark."""
    svg = picture.files["svg"].decode()
    begin = svg.index("<defs>")
    night = f"<style>@media (prefers-color-scheme: dark){{{_NIGHT}}}</style>"
    return f"data:image/svg+xml;base64,{base64.b64encode((svg[:begin] + night + svg[begin:]).encode()).decode()}"
