"""The page in a real browser: an image in, a certificate out, and nobody else asked for anything."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import dualrs
from dualrs.data import open_dataset
from dualrs.serving import input_on_record, verify

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def shipped():
    return dualrs.load("fashion-mnist"), open_dataset("fashion-mnist-sample", "test")


@pytest.fixture
def visit(browser, serve, shipped):
    """Opens the page of a service; what the browser complains of, or asks of others, fails the test."""
    model, images = shipped
    server = serve(model, offered=images)
    complaints, others, contexts = [], [], []

    def ask(request):
        if not request.url.startswith((f"{server.url}/", "data:", "blob:")):
            others.append(request.url)

    def open_page(*, complains=False, **settings):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings}))
        page = contexts[-1].new_page()
        if not complains:
            page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", ask)
        page.goto(server.url)
        page.wait_for_selector("#samples li")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert others == []


def set_to(page, name, value):
    page.locator(f"#{name}").fill(str(value))


def radius_on(page):
    found = re.search(r"radius ([\d.]+)", page.inner_text("#radius"))
    return float(found[1]) if found else 0.0


def finished(page):
    page.wait_for_selector("#record:not([hidden])", timeout=120_000)


def test_a_sample_is_certified_while_one_looks_on_and_attacked(visit, shipped):
    page = visit()
    assert page.inner_text("#model").startswith("toy: chooses σ = 0.25, 0.5, 1")
    assert page.locator("#samples img").count() == 20
    set_to(page, "n", 60)
    page.locator("#samples button").nth(8).click()
    page.wait_for_selector("#radius:has-text('growing')")
    seen = [radius_on(page)]
    while "growing" in page.inner_text("#radius"):
        seen.append(radius_on(page))
    finished(page)
    seen.append(radius_on(page))
    assert len({*seen}) > 3  # it grew before one's eyes
    assert seen[-1] == max(seen)
    assert page.inner_text("#label") == "bag"
    assert page.locator("#levels li").all_inner_texts() == ["σ = 0.25", "σ = 0.5", "σ = 1, chosen"]
    assert page.locator("#models h3").count() >= 2
    assert page.locator("#route-rows tr").count() == 3
    assert "limits the radius" in page.inner_text("#limit")
    assert "min rule, on the same votes" in page.inner_text("#min-rule")
    assert page.locator("#perturbed canvas").count() == 4
    page.click("#break")
    page.wait_for_selector("#attack-state:has-text('inside the ball')", timeout=120_000)
    page.wait_for_selector("#attack-state:has-text('Outside')", timeout=120_000)
    assert "None of" in page.inner_text("#attack-state")
    assert page.locator("#attempts .other").count() <= page.locator("#attempts li").count()


def test_the_record_that_is_saved_can_be_verified(visit, shipped, tmp_path):
    page = visit()
    set_to(page, "n", 20)
    page.locator("#samples button").nth(7).click()  # models disagree under noise, so another seed gives other votes
    finished(page)
    with page.expect_download() as download:
        page.click("#download")
    path = tmp_path / "record.json"
    download.value.save_as(path)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert verify(record, shipped[0], input_on_record(record)).verified


def test_a_file_of_any_size_by_keyboard_alone(visit, tmp_path):
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(photo)
    page = visit(viewport={"width": 390, "height": 800})
    assert page.is_disabled("#certify")
    set_to(page, "n", 0)
    page.focus("#file")
    page.set_input_files("#file", photo)
    finished(page)
    page.focus("#n")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#alpha-value") == "0.01"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert not page.is_checked("#compare")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#progress:has-text('votes in')", timeout=120_000)
    finished(page)
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= 390  # nothing hangs over


def test_who_has_seen_enough_may_stop(visit):
    page = visit()
    set_to(page, "n", 100)
    page.locator("#samples button").nth(8).click()
    page.wait_for_selector("#radius:has-text('growing')", timeout=120_000)
    page.click("#stop")
    finished(page)
    assert "when you had enough" in page.inner_text("#progress")
    assert page.is_enabled("#certify")


def test_a_broken_file_is_an_error_in_plain_words(visit, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    page = visit(complains=True)  # of the status of the response
    page.set_input_files("#file", broken)
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem").startswith("This cannot be done: ")
    assert "image" in page.inner_text("#problem")
    assert page.is_enabled("#certify")
    page.locator("#samples button").first.click()
    finished(page)
    assert page.is_hidden("#problem")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_inaccessible(visit, scheme):
    page = visit(color_scheme=scheme, bypass_csp=True, complains=True)  # axe is a script from elsewhere
    for step in ("empty", "certified", "attacked"):
        if step == "certified":
            set_to(page, "n", 20)
            page.locator("#samples button").nth(8).click()
            finished(page)
        elif step == "attacked":
            page.click("#break")
            page.wait_for_selector("#attack-state:has-text('utside')", timeout=120_000)
        results = axe.Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
