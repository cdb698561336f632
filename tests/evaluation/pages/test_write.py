import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from dualrs.evaluation import plots, write_report
from dualrs.evaluation.pages import PAGE, _write
from dualrs.evaluation.pages._pictures import overlaid_curves, pictures_of

FIGURES = ["choice", "curves", "estimator", "probabilities", "radii", "votes"]
TABLES = [
    "averages", "certified-accuracy", "choice", "class-probability", "cost", "differences", "engine", "estimator",
]  # fmt: skip
HOSTILE = "<script>window.hostile = 1</script>\"'&$x_{"


class Elements(HTMLParser):
    """The elements of a page, by tag, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], text
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_holds_page_figures_and_tables(table, save, tmp_path):
    page = write_report([save("one", table)], tmp_path / "report")
    assert page == tmp_path / "report" / PAGE
    assert sorted(files(tmp_path / "report")) == sorted(
        [PAGE, *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("pdf", "png"))]
        + [f"tables/{name}.{kind}" for name in TABLES for kind in ("csv", "md", "tex")]
    )
    elements = Elements(page.read_text())
    assert [one["data-name"] for one in elements.of("table") if "data-name" in one] == [
        "certified-accuracy", "averages", "differences", "choice", "estimator", "class-probability", "cost", "engine",
    ]  # fmt: skip
    images = elements.of("img")
    assert len(images) == len(FIGURES)
    assert all(image["src"].startswith("data:image/svg+xml;base64,") and len(image["alt"]) > 20 for image in images)


def test_a_page_asks_for_nothing(table, save, tmp_path):
    page = write_report([save("one", table)], tmp_path / "report").read_text()
    elements = Elements(page)
    (policy,) = [one["content"] for one in elements.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag, attributes in elements.found:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not {"style", "onclick"} & set(attributes)


def test_the_same_run_gives_the_same_bytes(table, save, tmp_path):
    run = save("one", table)
    for name in ("a", "b"):
        write_report([run], tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_several_runs_are_compared_where_they_meet(table, save, tmp_path):
    some = table.filter(pl.col("idx") > 3)
    page = write_report([save("all", table), save("some", some)], tmp_path / "report", radii=[0, 0.5]).read_text()
    written = files(tmp_path / "report")
    assert {"figures/curves.png", "figures/all/curves.png", "figures/some/radii.pdf"} <= set(written)
    assert "of the 4 inputs that all runs have" in page
    header, *rows = written["tables/certified-accuracy.csv"].decode().splitlines()
    assert header == "run,method,0.00,0.00_low,0.00_high,0.50,0.50_low,0.50_high"
    assert [row.split(",")[:3] for row in rows][::4] == [["all", "dual", "0.25"], ["some", "dual", "0.25"]]
    assert written["tables/differences.md"].decode().startswith("Certified accuracy of all less that of others")


def test_hostile_names_are_text(table, save, tmp_path):
    hostile = table.with_columns(pl.col("method").replace({"global-0.5": HOSTILE}))
    page = write_report([save("<b>&amp;", hostile)], tmp_path / "report").read_text()
    assert "<script>window" not in page
    assert "&lt;script&gt;window.hostile = 1&lt;/script&gt;" in page
    assert r"\u003cscript\u003ewindow.hostile" in page  # in the data of the inputs
    assert "<b>" not in page
    assert len(Elements(page).of("script")) == 2


def test_a_log_gets_what_it_tells(table, save, tmp_path):
    log = table.filter(method="global-0.5").with_columns(
        method=pl.lit("published"), stages=pl.lit("[]"), rule=pl.lit("log"), expert=pl.lit(None, pl.String()),
        samples=pl.lit(None, pl.Int64()), sigma=pl.lit(None, pl.Float64()), alpha=pl.lit(None, pl.Float64()),
    )  # fmt: skip
    run = save("log", log) / "certificates.parquet"
    page = write_report([run], tmp_path / "report").read_text()
    written = {Path(name).stem for name in files(tmp_path / "report")}
    assert written == {"report", "curves", "averages", "certified-accuracy", "cost"}
    assert "not recorded" in page
    assert "There are numbers only: No record says" in page


def test_pictures_can_be_left_out(table, save, tmp_path):
    run = save("one", table)
    assert "data:image/webp" in write_report([run], tmp_path / "with").read_text()
    assert "data:image/webp" not in write_report([run], tmp_path / "without", thumbnails=False).read_text()


def test_an_earlier_report_is_replaced_as_a_whole(table, save, tmp_path):
    folder = tmp_path / "report"
    write_report([save("one", table)], folder)
    write_report([save("two", table.filter(method="global-0.5"))], folder)
    assert "figures/radii.png" not in files(folder)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_fails_leaves_the_earlier_report(table, save, tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write_report([save("one", table)], folder)
    before = files(folder)
    with pytest.raises(FileNotFoundError, match="no run"):
        write_report([tmp_path / "nowhere"], folder)
    with pytest.raises(ValueError, match="radii must ascend"):
        write_report([tmp_path / "one"], folder, radii=[1, 0.5])
    with pytest.raises(ValueError, match="at least one radius"):
        write_report([tmp_path / "one"], folder, radii=[])
    monkeypatch.setattr(_write, "_write_tables", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report([tmp_path / "one"], folder)
    assert files(folder) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_of_something_else_is_left_alone(table, save, tmp_path):
    run = save("one", table)
    with pytest.raises(FileExistsError, match=r"other files than a report \(certificates\.parquet\)"):
        write_report([run], run)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="no folder"):
        write_report([run], tmp_path / "file")


@pytest.mark.parametrize("name", ["_hidden", "$x", "日本", "a\nb"])
def test_any_name_can_be_drawn(table, name, run_of):
    renamed = table.with_columns(pl.col("method").replace({"global-0.5": name}))
    pictures = pictures_of(run_of(name, renamed))
    assert [picture.name for picture in pictures] == [
        "curves",
        "choice",
        "radii",
        "estimator",
        "probabilities",
        "votes",
    ]
    for picture in pictures:
        assert {kind: content[:4] for kind, content in picture.files.items()} == {
            "svg": b"<?xm", "png": b"\x89PNG", "pdf": b"%PDF",
        }  # fmt: skip


def test_where_nothing_is_certified_curves_are_flat(table, run_of):
    nothing = table.filter(idx=9)
    assert "curves" in [picture.name for picture in pictures_of(run_of("nothing", nothing))]
    assert overlaid_curves([run_of("a", nothing), run_of("b", nothing)]).files


def test_a_curve_of_many_steps_is_drawn_with_few(table):
    rows = table.filter(idx=3, method="dual")
    fine = pl.concat([rows.with_columns(idx=pl.lit(i, pl.Int64()), radius=pl.lit(i / 9000)) for i in range(9000)])
    (line,) = plots._draw(fine, "t", "").axes[0].get_lines()
    x, y = line.get_data()
    assert len(x) < 2500
    exact = (fine["radius"].to_numpy()[None] > x[:, None]).mean(axis=1)
    assert (y == exact).all()
    assert abs(y[:-1] - y[1:]).max() < 0.002
    assert y[-1] == 0


def test_the_docs_name_every_figure():
    page = (Path(__file__).parents[3] / "docs" / "report.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"`(\w+)\.png`", page)) == FIGURES
