"""What tests of several rooms use."""

import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    """The path of a browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium here; on Debian: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def browser(chromium):
    """A browser, for one module: as long as it runs, asyncio has a loop in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()
