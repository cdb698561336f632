"""What users install: the wheel in an environment of its own, beside nothing of this repository."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src" / "dualrs" / "shipped"


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """An environment with the wheel; the libraries that it needs are those that are here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # A path in a .pth file is searched, but the .pth files in it are not read: no editable install comes along.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    return folder


def test_the_archives_hold_what_they_should(built):
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = (
        "py.typed",
        "serving/page/index.html",
        "serving/page/main.js",
        "evaluation/pages/page.html.jinja",
        "evaluation/pages/page.css",
        "evaluation/pages/page.js",
        "data/fashion_mnist_sample",
        *(f"shipped/{path.relative_to(SHIPPED)}" for path in SHIPPED.glob("*/*")),
    )
    for part in wanted:
        assert any(name.startswith(f"dualrs/{part}") for name in names), part
    assert not [name for name in names if name.startswith(("tests", "benchmarks")) or "__pycache__" in name]
    with tarfile.open(source) as archive:
        contained = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "src/dualrs/__init__.py"} <= contained
    assert not [name for name in contained if name.startswith("runs/")]
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source, cwd=built)


def test_an_installed_wheel_answers(installed, tmp_path):
    python, command = installed / "bin" / "python", installed / "bin" / "dualrs"
    where = run(python, "-c", "import dualrs; print(dualrs.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)
    assert "serve" in run(command, "--help", cwd=tmp_path)
    script = """
from PIL import Image
from dualrs.data import load
data = load("fashion-mnist-sample")
image = data.image(next(i for i in range(100) if data.label(i) == 8))
Image.fromarray((255 * image[0]).round().byte().numpy()).save("bag.png")
import dualrs
from dualrs.models import shipped_models
for name in shipped_models():
    print(name, dualrs.DualSmoothedClassifier.from_pretrained(name).sigmas)
"""
    assert run(python, "-c", script, cwd=tmp_path).splitlines() == [
        "cifar10 (0.25, 0.5, 1.0)",
        "fashion-mnist (0.25, 0.5, 1.0)",
    ]
    assert run(command, "predict", "fashion-mnist", "bag.png", cwd=tmp_path).startswith("bag: label 8")


def test_importing_is_quick_because_it_imports_little(installed, tmp_path):
    heavy = "{'torch', 'numpy', 'scipy', 'polars', 'matplotlib', 'onnxruntime', 'ray', 'fastapi', 'sklearn', 'art'}"
    for what in ("dualrs", "dualrs.cli"):
        script = f"import sys, {what}; print(sorted(sys.modules.keys() & {heavy}))"
        assert run(installed / "bin" / "python", "-c", script, cwd=tmp_path).strip() == "[]"
