"""What `mkdocs build` does beyond the pages in docs/: hooks that mkdocs.yml names.

- Pages that are made at the build, so that they cannot be out of date: the command-line reference from the programs'
  own options, the notebooks, and what lies outside of docs/ and is read there too (the benchmarks, the changes).
- Links in pages are those of the repository, which work wherever it is browsed. What they point to outside of docs/
  becomes a page of the site where there is one, else a copy below ``repository/``.
"""

from __future__ import annotations

import json
import posixpath
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changes.md"}
"""Files of the repository that are pages of the site, by where they are there."""

NOTEBOOKS = "notebooks/"
COMMANDS = "<!-- commands -->"
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s#]*)(#[^)\s]*)?(\))")
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def page_text(source: str) -> str:
    """A page as it is shown, by its path in docs/ or, if it lies outside, in the repository; links as they are."""
    path = ROOT / source if source in OUTSIDE else ROOT / "docs" / source
    if source.startswith(NOTEBOOKS) and source.endswith(".md"):
        return notebook_page(path.with_suffix(".ipynb"))[0]
    text = path.read_text(encoding="utf-8")
    return text.replace(COMMANDS, commands_page()) if COMMANDS in text else text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here, and whatever pages link to outside of docs/."""
    from mkdocs.structure.files import File

    for outside, source in OUTSIDE.items():
        files.append(File.generated(config, source, content=page_text(outside)))
    for notebook in sorted((ROOT / "docs" / NOTEBOOKS).glob("*.ipynb")):
        text, pictures = notebook_page(notebook)
        page = f"{NOTEBOOKS}{notebook.stem}.md"
        files.append(File.generated(config, page, content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"{NOTEBOOKS}{name}", content=content))
    sources = {file.src_uri for file in files}
    origins = {page: outside for outside, page in OUTSIDE.items()}
    for page in [source for source in sources if source.endswith(".md")]:
        origin = origins.get(page)
        text = page_text(page if origin is None else origin)
        for target in _local_targets(text):
            inside, place = _resolve(target, origin or f"docs/{page}")
            if inside not in sources and (ROOT / place).is_file():
                sources.add(inside)
                files.append(File.generated(config, inside, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fills in what is made at the build, and makes the repository's links links of the site."""
    source = page.file.src_uri
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands_page())
    origin = {page: outside for outside, page in OUTSIDE.items()}.get(source, f"docs/{source}")

    def relink(match: re.Match[str]) -> str:
        opening, target, anchor, closing = match.groups()
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group()
        inside, place = _resolve(target, origin)
        if (ROOT / place).is_dir():
            return match.group().split("](")[0].lstrip("[!")  # a folder of the repository: its name, without a link
        return f"{opening}{posixpath.relpath(inside, posixpath.dirname(source) or '.')}{anchor or ''}{closing}"

    return "".join(
        part if part.lstrip().startswith("```") else LINK.sub(relink, part) for part in _FENCED.split(markdown)
    )


def _local_targets(text: str) -> Iterator[str]:
    for part in _FENCED.split(text):
        if not part.lstrip().startswith("```"):
            for _, target, _, _ in LINK.findall(part):
                if target and "://" not in target and not target.startswith("mailto:"):
                    yield target


def _resolve(target: str, origin: str) -> tuple[str, str]:
    """Where a link of a file of the repository leads: in the site, and in the repository."""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if place in OUTSIDE:
        return OUTSIDE[place], place
    if place.startswith("docs/"):
        return place.removeprefix("docs/"), place
    return f"repository/{place}", place


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with its pictures by their names: text, code, and what each cell printed or drew."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts, pictures = [], {}
    for number, cell in enumerate(cells):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for place, output in enumerate(cell["outputs"]):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{number}-{place}.png"
                pictures[name] = b64decode("".join(data["image/png"]))
                parts.append(f"![Drawn by the cell above]({name})")
            elif printed := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{_ESCAPES.sub('', printed).rstrip()}\n```")
        if number == 1:
            parts.insert(1, f"*The notebook itself: [{path.name}]({path.name}). What it printed is from a real run.*")
    return "\n\n".join(parts) + "\n", pictures


def commands_page() -> str:
    """The reference of the command line, from the options that the programs parse."""
    import typer

    from dualrs.cli import app

    return "\n".join(_described(typer.main.get_command(app), "dualrs"))


def _described(command: Any, name: str) -> Iterator[str]:
    nested = getattr(command, "commands", None)
    if nested is not None:
        for child, part in nested.items():
            yield from _described(part, f"{name} {child}")
        return
    yield f"\n## {name}\n"
    yield _prose(command.help or "")
    context = command.context_class(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context)).replace("[OPTIONS]", "[options]")
    yield f"\n```text\n{name} {usage}\n```\n"
    rows = [row for param in command.params if (row := _row(param, context))]
    if rows:
        yield "| argument or option | what it does | if absent |\n|---|---|---|"
        yield from rows


def _row(param: Any, context: Any) -> str | None:
    if param.name == "help" or getattr(param, "hidden", False):
        return None
    if param.param_type_name == "argument":
        return f"| `{param.name}` | {_cell(param.help)} | {'required' if param.required else ''} |"
    record = param.get_help_record(context)
    shape = record[0] if record else ", ".join(param.opts)
    default = param.default() if callable(param.default) else param.default
    shown = default if isinstance(default, bool | int | float | str | Path) and not isinstance(default, bool) else None
    value = getattr(default, "value", shown)
    absent = "required" if param.required else "" if value in (None, "") else f"`{value}`"
    return f"| `{_cell(shape)}` | {_cell(param.help)} | {absent} |"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """Help as Markdown: paragraphs, and the example as a block."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.replace("\b", ""))]
    return "\n\n".join(
        f"```sh\n{part.removeprefix('Example: ')}\n```" if part.startswith("Example: ") else part for part in paragraphs
    )
