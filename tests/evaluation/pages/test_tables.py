import polars as pl
import pytest

from dualrs.evaluation import compare, summarize
from dualrs.evaluation.pages._cells import Cell, Table, comma_separated, latex, markdown, number, percent, stacked, word
from dualrs.evaluation.pages._tables import differences, tables_of

SMALL = Table(
    "small",
    "Shares, %",
    "About σ and R_c.",
    (("method", "method"), ("0.50", "0.50"), ("mean_radius", "mean radius")),
    (
        (word("σ = 0.5"), percent(0.125, (0.1, 0.15), strong=True), number(-0.5, "z.3f")),
        (word("a|b <i> $x_1$"), percent(None), number(1234.5, "z,.1f", (1000.0, 2000.0))),
    ),
)


@pytest.fixture
def tables(recorded):
    return {table.name: table for table in tables_of(recorded, summarize(recorded.table, [0, 0.25]))}


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_markdown():
    assert markdown(SMALL) == (
        "Shares, %\n"
        "\n"
        "| method | 0.50 | mean radius |\n"
        "| --- | --: | --: |\n"
        "| σ = 0.5 | **12.5** | −0.500 |\n"
        "| a\\|b &lt;i&gt; \\$x\\_1\\$ | – | 1,234.5 |\n"
        "\n"
        "About σ and R\\_c.\n"
    )


def test_latex():
    assert latex(SMALL) == (
        "% Shares, %\n"
        "% About σ and R_c.\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "method & 0.50 & mean radius \\\\\n"
        "\\midrule\n"
        "$\\sigma$ = 0.5 & \\textbf{12.5} & $-$0.500 \\\\\n"
        "a|b $<$i$>$ \\$x\\_1\\$ & -- & 1,234.5 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_csv_has_all_digits_and_the_ends():
    assert comma_separated(SMALL) == (
        "method,0.50,0.50_low,0.50_high,mean_radius,mean_radius_low,mean_radius_high\n"
        "σ = 0.5,0.125,0.1,0.15,-0.5,,\n"
        "a|b <i> $x_1$,,,,1234.5,1000.0,2000.0\n"
    )


def test_a_line_break_in_a_name_breaks_no_table():
    broken = Table("t", "t", "", (("a", "a"),), ((word("x\n\\end{tabular}\n| y"),),))
    assert "x \\textbackslash{}end\\{tabular\\} | y \\\\" in latex(broken)
    assert "| x \\\\end{tabular} \\| y |" in markdown(broken)


@pytest.mark.parametrize(
    ("cell", "text", "within"),
    [
        (percent(0.832, (0.7963, 0.8637)), "83.2", "79.6–86.4"),
        (percent(-0.066, (-0.117, 0.027), "+z.1f"), "−6.6", "−11.7, 2.7"),
        (percent(-1e-9, (-1e-9, 1e-9), "+z.1f"), "+0.0", ""),
        (number(2100.0, "z,.0f", (2100.0, 2100.0)), "2,100", ""),
        (number(None, "z,.0f"), "–", ""),
    ],
)
def test_figures_as_people_read_them(cell, text, within):
    assert (cell.text, cell.within) == (text, within)


def test_certified_accuracies(tables):
    table = tables["certified-accuracy"]
    assert table.columns == (("method", "method"), ("0.00", "0.00"), ("0.25", "0.25"))
    assert texts(table) == [
        ["dual", "40.0", "20.0"],
        ["σ = 0.25 for all", "60.0", "40.0"],
        ["σ = 0.5 for all", "60.0", "60.0"],
        ["oracle σ (knows the label)", "80.0", "60.0"],
    ]
    assert [[cell.strong for cell in row[1:]] for row in table.rows] == [
        [False, False],
        [True, False],
        [True, True],
        [False, False],
    ]
    assert table.rows[0][1].within == "5.3–85.3"
    assert "Bold is the best single σ" in table.note


def test_averages_and_cost(tables):
    assert texts(tables["averages"])[0] == ["dual", "0.250", "40.0", "40.0", "0.001", "0"]
    assert texts(tables["averages"])[3][4] == "0.002"
    assert texts(tables["cost"])[:2] == [["dual", "1,800", "2.000"], ["σ = 0.25 for all", "1,100", "0.500"]]
    assert texts(tables["class-probability"])[0] == ["dual", "0.0", "0.0", "0.0", "0.0", "0.0"]


def test_the_choice(tables):
    assert texts(tables["choice"]) == [
        ["σ = 0.25", "40.0", "60.0"],
        ["σ = 0.5", "40.0", "20.0"],
        ["none", "20.0", "20.0"],
    ]
    assert tables["choice"].rows[0][1].within == "5.3–85.3"
    rows = {row[0]: row[1] for row in texts(tables["estimator"])}
    assert rows["the estimator abstained, %"] == "20.0"
    assert rows["the choice limits the radius, % of certificates"] == "66.7"
    assert texts(tables["engine"]) == [["expert-0.5", "torch", "cpu", "float32", "5,000", "–", "–"]]


def test_differences_are_paired(recorded):
    table = differences([recorded], [0, 0.5])
    assert table.columns[1:3] == (("0.00", "0.00"), ("0.50", "0.50"))
    assert texts(table) == [
        ["σ = 0.25 for all", "−20.0", "+0.0", "−0.025"],
        ["σ = 0.5 for all", "−20.0", "+0.0", "−0.150"],
    ]
    found = compare(recorded.table, recorded.table, [0], methods=("dual", "global-0.5"))
    assert table.rows[1][1].interval == found.at[0].interval
    assert not table.rows[1][1].strong


def test_runs_are_compared_by_their_first_methods(recorded, run_of):
    other = run_of("other", recorded.table.filter(method="global-0.5"))
    table = differences([recorded, other], [0])
    assert table.title.startswith("Certified accuracy of by-hand less")
    assert texts(table) == [["other", "−20.0", "−0.150"]]


def test_stacking_names_the_run(tables, recorded):
    both = stacked([("a", tables["cost"]), ("b", tables["cost"])])
    assert both.columns[0] == ("run", "run")
    assert [row[0] for row in texts(both)] == ["a"] * 4 + ["b"] * 4
    assert stacked([("a", tables["cost"])]) is tables["cost"]


def test_a_log_has_what_it_tells(table, run_of):
    log = table.filter(method="global-0.5").with_columns(
        method=pl.lit("published"), stages=pl.lit("[]"), rule=pl.lit("log"),
        samples=pl.lit(None, pl.Int64()), sigma=pl.lit(None, pl.Float64()), alpha=pl.lit(None, pl.Float64()),
    )  # fmt: skip
    run = run_of("log", log)
    found = {table.name: table for table in tables_of(run, summarize(log, [0]))}
    assert texts(found["certified-accuracy"]) == [["published", "60.0"]]
    assert texts(found["averages"]) == [["published", "0.400", "60.0", "20.0", "–", "–"]]
    assert texts(found["cost"]) == [["published", "–", "1.000"]]
    assert [name for name, table in found.items() if not table.rows] == [
        "class-probability",
        "choice",
        "estimator",
        "engine",
        "attack-aims",
        "attack-accuracy",
    ]
    assert differences([run], [0]).rows == ()
    assert Cell("–", None) == number(None)
