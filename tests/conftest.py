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
