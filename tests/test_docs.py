"""The documentation: its code runs, its links lead somewhere, and the site is built strictly."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]


def script(name):
    """A program of scripts/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


pages_of = script("docs_pages")
PAGES = {path.relative_to(ROOT).as_posix(): path for path in pages_of.pages()}
RUNNING = [
    name for name, path in PAGES.items() if any(block.runs for block in pages_of.blocks(path.read_text("utf-8")))
]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def words(text):
    """What has to stay the same; figures may differ, for they depend on the machine and the versions."""
    return re.findall(r"[^\W\d]+", text)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNNING)
def test_code_runs_and_prints_what_the_page_shows(name, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = PAGES[name].read_text(encoding="utf-8")
    ran = pages_of.run(text, name, tmp_path)
    for block, printed in ran.outputs.items():
        assert block.mark != "output" or words(printed) == words(block.code), (
            f"{name}, line {block.line}: run scripts/docs_pages.py"
        )
    if name == "README.md":
        assert len(ran.printed.splitlines()) == 6


@pytest.mark.parametrize("name", PAGES)
def test_all_code_can_be_parsed(name):
    for block in pages_of.blocks(PAGES[name].read_text(encoding="utf-8")):
        if block.kind == "python":
            pages_of.parse(block, name)
        elif block.kind == "sh":
            for arguments in pages_of.commands(block.code):
                pages_of.check(arguments)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name):
    text = re.sub(r"^```.*?^```", "", PAGES[name].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path = PAGES[name].parent / target if target else PAGES[name]
        assert path.exists(), f"{name}: {target}"
        if anchor and path.suffix == ".md" and not anchor.startswith("dualrs."):  # these only the site has
            assert anchor in anchors(path), f"{name}: {target}#{anchor}"


def anchors(path):
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain}


def test_tables_are_those_of_the_records():
    command = [sys.executable, str(ROOT / "scripts" / "docs_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(notebook):
    program = script("run_notebooks")
    ran, shown = program.cleaned(program.run(notebook)), nbformat.read(notebook, as_version=4)
    for fresh, kept in zip(ran.cells, shown.cells, strict=True):
        if fresh.cell_type == "code":
            kinds = [{output.output_type for output in cell.outputs} for cell in (fresh, kept)]
            assert kinds[0] == kinds[1], "run scripts/run_notebooks.py"


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    # Nothing is asked of other sites before a reader follows a link.
    asked = re.compile(
        r'<(?:script|img|iframe)[^>]+src="https?://[^"]+"|<link[^>]+(?:stylesheet|icon)[^>]+href="https?://[^"]+"'
    )
    assert [page.name for page in pages if asked.search(page.read_text(encoding="utf-8"))] == []


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        assert path.relative_to(ROOT / "docs").as_posix() in navigation, path
