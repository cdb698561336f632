"""Takes the pictures of the page and of the terminal that the documentation shows, into ``docs/figures``.

The page is that of ``dualrs serve``, in Chromium; the terminal shows what a command prints. Look at them before they
are committed: the noise is another each time.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from serving import server  # noqa: E402

FIGURES = ROOT / "docs" / "figures"
DUALRS = [sys.executable, "-m", "dualrs.cli"]
PART = {"x": 0, "y": 0, "width": 1200, "height": 1700}  # of the page
SAMPLE = 8  # of the page: a bag
TERMINAL = [("dualrs doctor fashion-mnist", ["doctor", "fashion-mnist"])]
WIDTH = 104  # of the terminal, in columns


def picture_page(browser: Browser, address: str, scheme: str, target: Path) -> None:
    """The page after a certificate and an attack."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#samples li")
    page.locator("#samples button").nth(SAMPLE).click()
    page.wait_for_selector("#record:not([hidden])", timeout=120_000)
    page.click("#break")
    page.wait_for_selector("#attack-state:has-text('inside the ball')", timeout=120_000)
    # Nothing follows a reader who is not scrolling.
    page.evaluate("() => { document.getElementById('asking').style.position = 'static'; }")
    page.screenshot(path=target, full_page=True, clip=PART)
    context.close()


def printed(arguments: list[str], folder: Path) -> str:
    """What a command prints in a terminal, colours included."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": "60", "TERM": "xterm-256color"}
    with subprocess.Popen([*DUALRS, *arguments], stdout=theirs, stderr=subprocess.DEVNULL, cwd=folder, env=environment):
        os.close(theirs)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # nobody is at the other end any more
                break
            if not piece:
                break
            pieces.append(piece)
    os.close(ours)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def picture_terminal(browser: Browser, target: Path) -> None:
    """What the commands print, in a window."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115, PTH123
    with tempfile.TemporaryDirectory() as folder:
        for typed, arguments in TERMINAL:
            console.print(f"[bold green]$[/] {typed}", highlight=False)
            console.print(Text.from_ansi(printed(arguments, Path(folder))), soft_wrap=True)
    svg = console.export_svg(title="dualrs", font_aspect_ratio=0.6)
    # The font would come from elsewhere; any of fixed width does.
    svg = svg.replace("Fira Code", "DejaVu Sans Mono")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.set_content(f"<body style='margin:0;width:1100px'>{svg}</body>")
    page.locator("svg").screenshot(path=target)
    page.close()


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["page", "terminal"])
    only = parser.parse_args().only
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    FIGURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        if only != "terminal":
            with server() as (_, address):
                for scheme in ("light", "dark"):
                    picture_page(browser, address, scheme, FIGURES / f"page-{scheme}.png")
        if only != "page":
            picture_terminal(browser, FIGURES / "terminal.png")
        browser.close()


if __name__ == "__main__":
    main()
