"""The README shows what the programs print today, and its example runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_generated_sections_are_up_to_date():
    script = [sys.executable, ROOT / "scripts" / "update_readme.py", "--check"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


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


def test_goals_of_make_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for goal in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal
