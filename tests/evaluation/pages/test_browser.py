"""The report in a real browser: what it shows and does, and that it asks nobody for anything."""

import polars as pl
import pytest

from dualrs.evaluation import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "<img src=x onerror='window.hostile=1'><script>window.hostile=1</script>"


@pytest.fixture
def report(many, save, tmp_path):
    hostile = many.with_columns(pl.col("method").replace({"global-0.5": HOSTILE}))
    return write_report([save("run", hostile)], tmp_path / "report")


@pytest.fixture
def page(browser, report):
    """The report, opened; whatever the browser complains of, or asks for, fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    context.close()


def cells(page, column):
    """The texts of a column of the list of inputs, by its heading."""
    headings = page.locator("#list thead th").all_inner_texts()
    position = next(i for i, heading in enumerate(headings) if heading.split(" ↕")[0].split(" ↑")[0].strip() == column)
    return page.locator(f"#list > tbody > tr:not(.more) > :nth-child({position + 1})").all_inner_texts()


def test_everything_is_shown(page):
    assert page.inner_text("h1") == "Certified robustness on fashion-mnist-sample"
    assert page.locator("h2").all_inner_texts() == ["What was certified", "Results", "Inputs", "Record"]
    assert "at most α = 0.001" in page.inner_text(".guarantee")
    assert (
        page.inner_text("table[data-name=certified-accuracy] tbody tr:first-child td:nth-child(2)").split()[0] == "40.0"
    )
    assert page.evaluate("[...document.images].map((image) => image.naturalWidth > 300)") == [True] * 6
    assert page.evaluate("window.hostile") is None
    assert HOSTILE in page.inner_text("table[data-name=certified-accuracy]")


def test_inputs_are_filtered(page):
    assert page.inner_text("#count") == "100 of 100 inputs"
    for outcome, share in (("right", 40), ("wrong", 20), ("abstained", 40), ("limited", 40), ("all", 100)):
        page.select_option("#outcome", outcome)
        assert page.inner_text("#count") == f"{share} of 100 inputs"
    page.select_option("#answer", label="σ = 0.5")
    assert page.inner_text("#count") == "40 of 100 inputs"
    assert set(cells(page, "answered by")) == {"σ = 0.5"}
    page.select_option("#answer", "all")
    page.fill("#find", "47")
    assert cells(page, "input") == ["47"]
    page.fill("#find", "")
    assert page.locator("#class option").all_inner_texts() == ["all", "trouser"]


def test_inputs_are_sorted_with_the_keyboard(page):
    page.locator("#list thead button", has_text="radius").focus()
    page.keyboard.press("Enter")
    assert set(cells(page, "radius")) == {"0.0000"}
    page.keyboard.press("Enter")  # the focus stayed
    radii = [float(text) for text in cells(page, "radius")]
    assert radii == sorted(radii, reverse=True)
    assert radii[0] == 1.5
    assert page.locator("#list thead [aria-sort=descending]").inner_text().startswith("radius")


def test_inputs_are_on_pages(page):
    assert len(cells(page, "input")) == 25
    assert page.locator("#previous").is_disabled()
    for _ in range(3):
        page.click("#next")
    assert page.inner_text("#page") == "page 4 of 4"
    assert cells(page, "input")[-1] == "391"
    assert page.locator("#next").is_disabled()


def test_a_row_opens_to_every_method(page):
    page.click("button[aria-label='all methods on input 3']")
    rows = page.locator("#list .more tbody tr")
    assert rows.count() == 4
    assert rows.nth(1).inner_text().split("\t") == [
        "σ = 0.25 for all",
        "trouser",
        "✓ right",
        "0.7500",
        "σ = 0.25",
        "1,100",
    ]
    page.click("button[aria-label='all methods on input 3']")
    assert rows.count() == 0


def test_methods_are_chosen(page):
    page.select_option("#series", label="σ = 0.25 for all")
    assert "Rσ" not in [text.strip(" ↕") for text in page.locator("#list thead th").all_inner_texts()]
    assert cells(page, "radius")[:2] == ["0.7500", "0.0000"]


def test_inputs_have_pictures(page):
    picture = page.locator("#list .picture").first
    assert picture.evaluate("(e) => getComputedStyle(e).backgroundImage").startswith('url("data:image/webp;base64,')
    assert picture.bounding_box()["width"] == 56
    assert picture.get_attribute("aria-label") == "input 3, trouser"
    assert (
        len(set(page.locator("#list .picture").evaluate_all("all => all.map(e => e.style.backgroundPosition)"))) == 25
    )


def test_it_fits_a_phone_and_the_dark(page):
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_it_is_printed_without_its_controls(page):
    page.emulate_media(media="print")
    assert not page.locator("#inputs").is_visible()
    assert page.locator("table[data-name=certified-accuracy]").is_visible()
