"""Runs the code of the documentation; writes what it printed into the pages.

    python scripts/docs_pages.py [PAGE …]   # with no page: all that have outputs

A page's code is its fenced blocks, in order, in one namespace and one temporary folder: every ``python`` block, and
every ``sh`` block that says so. The line before a block may be one of

- ``<!-- run -->``: run these commands (``dualrs …`` only); without it their options are parsed, no more;
- ``<!-- not run: REASON -->``: parse this block only;
- ``<!-- output -->``: this ``text`` block is what the code since the last one printed. This program writes it, and
  ``tests/test_docs.py`` compares it, but for figures, with what is printed then;
- ``<!-- output, of one machine -->``: the same, and not compared.

``<!-- setup`` … ``-->`` is Python that runs, and is not shown.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|^(?:<!-- (?P<mark>run|output(?:, of one machine)?|not run: [^>]+?) -->\n)?"
    r"```(?P<kind>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ENDS = {"|", ">", ">>", "&&", ";", "2>", "<", "&"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        kind: its language; "python" for what is not shown.
        code: what is in it.
        mark: "run", "output", "not run: …" or "".
        line: the number of the line before its first one.
        span: where its code is in the text.
    """

    kind: str
    code: str
    mark: str
    line: int
    span: tuple[int, int]

    @property
    def runs(self) -> bool:
        """Whether it is run, not only parsed."""
        if self.kind == "python":
            return not self.mark.startswith("not run")
        return self.kind == "sh" and self.mark == "run"


@dataclass
class Ran:
    """What running a page gave: for each block marked as output, what the code before it printed."""

    outputs: dict[Block, str] = field(default_factory=dict)
    printed: str = ""


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    for match in _BLOCK.finditer(text):
        group = "setup" if match["setup"] is not None else "code"
        line = text.count("\n", 0, match.start(group))
        yield Block(match["kind"] or "python", match[group], match["mark"] or "", line, match.span(group))


def run(text: str, name: str, folder: Path) -> Ran:
    """Runs the code of a page in a folder; errors of the code pass through, with lines of the page."""
    ran, since, namespace = Ran(), io.StringIO(), {"__name__": "__main__"}
    with contextlib.chdir(folder), contextlib.redirect_stdout(since):
        for block in blocks(text):
            if block.mark.startswith("output"):
                ran.outputs[block] = tidy(since.getvalue())
                ran.printed += since.getvalue()
                since.seek(0)
                since.truncate()
            elif block.runs and block.kind == "python":
                exec(compile("\n" * block.line + block.code, name, "exec"), namespace)
            elif block.runs:
                for arguments in commands(block.code):
                    status = call(arguments)
                    if status:
                        raise RuntimeError(f"{name}, line {block.line}: dualrs {shlex.join(arguments)} gave {status}")
    ran.printed += since.getvalue()
    return ran


def commands(code: str) -> Iterator[list[str]]:
    """The arguments of every call of dualrs in a shell block."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        starts = [
            i for i, word in enumerate(words) if word in ("dualrs", "dualrs.cli") and (i == 0 or _calls(words, i))
        ]
        for start in starts:
            arguments: list[str] = []
            for word in words[start + 1 :]:
                if word in _ENDS:
                    break
                arguments.append(word)
            yield arguments


def _calls(words: list[str], i: int) -> bool:
    """Whether the word is a program and not an argument: behind -m, an operator, or what starts programs."""
    return words[i - 1] in {"-m", *_ENDS} or words[0] in {"srun", "nice", "time"} or "=" in words[i - 1]


def call(arguments: list[str]) -> int:
    """Runs dualrs with these arguments in this process, and gives its exit code."""
    import typer

    from dualrs.cli import app

    status = typer.main.get_command(app).main(args=arguments, prog_name="dualrs", standalone_mode=False)
    return status if isinstance(status, int) else 0


def check(arguments: list[str]) -> None:
    """Parses arguments of dualrs as the program would; raises a usage error where it would refuse them."""
    import typer

    from dualrs.cli import app

    command: Any = typer.main.get_command(app)
    name, rest = "dualrs", list(arguments)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            raise ValueError(f"dualrs has no command {name!r}")
        command = command.commands[name]
    if not hasattr(command, "commands"):
        command.make_context(name, rest)


def parse(block: Block, name: str) -> None:
    """Parses a Python block; raises a syntax error with the page's line."""
    ast.parse("\n" * block.line + block.code, name)


def tidy(printed: str) -> str:
    """What was printed, without colours and blanks at ends of lines."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
    return "".join(f"{line.rstrip()}\n" for line in plain.strip("\n").splitlines())


def pages() -> list[Path]:
    """All pages that people read: those of docs/, of the repository, and of the benchmarks."""
    return [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    """Writes the outputs of the pages that are named, or of all."""
    os.environ["COLUMNS"] = "100"
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    for path in chosen:
        text = path.read_text(encoding="utf-8")
        if not any(block.mark.startswith("output") for block in blocks(text)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            ran = run(text, str(path.relative_to(ROOT)), Path(folder))
        for block, output in reversed(ran.outputs.items()):
            text = text[: block.span[0]] + output + text[block.span[1] :]
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(ran.outputs)} outputs", file=sys.stderr)


if __name__ == "__main__":
    main()
