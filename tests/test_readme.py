"""The README shows what the programs print today, and its example runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_generated_sections_are_up_to_date():
    script = [sys.executable, ROOT / "scripts" / "update_readme.py", "--check"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


PAGES = [
    "README.md",
    "docs/theory.md",
    "docs/architecture.md",
    "docs/baselines.md",
    "docs/report.md",
    "docs/planning.md",
    "benchmarks/README.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (ROOT / page).parent.joinpath(target).exists()] == []


def test_the_tests_that_the_page_of_baselines_points_to_exist():
    page, file = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8"), ""
    pointers = re.findall(r"^\d+\. (.*)$", page, re.MULTILINE)
    assert [int(number) for number in sorted(set(re.findall(r"\[(\d+)\][^(]", page)), key=int)] == [*range(1, 15)]
    assert len(pointers) == 14
    for pointer in re.findall(r"`([^`]+\.py[^`]*|::[^`]+)`", "\n".join(pointers)):
        path, *names = pointer.split("::")
        file = path or file
        tests = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert all(re.search(rf"(def|class) {name}\b", tests) for name in names), pointer


def test_the_page_of_benchmarks_is_up_to_date():
    script = [sys.executable, ROOT / "benchmarks" / "report.py", "--check"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_python_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    result = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 6


def test_the_commands_and_options_exist():
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    for command, options in re.findall(r"^dualrs (\w+)([^#\n]*)", shell, re.MULTILINE):
        arguments = [command, "fetch"] if command == "data" else [command]
        help_text = subprocess.run(
            [sys.executable, "-m", "dualrs.cli", *arguments, "--help"],
            env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for option in re.findall(r"--[\w-]+", options):
            assert option in help_text, f"dualrs {command} has no {option}"


def test_goals_of_make_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for goal in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal
