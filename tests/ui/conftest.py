"""A served page without Kafka, and headless Chromium to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from stream_interp.ui.model.model import Model
from stream_interp.ui.server import serving
from stream_interp.ui.web.app import Site, make_app
from tests.ui import records


@pytest.fixture(scope="session")
def big_model() -> Model:
    """50 lanes with 200 incidents each. Nobody may change it."""
    model = Model()
    records.fleet(model, lanes=50, incidents=200)
    return model


@pytest.fixture(scope="session")
def big_page(big_model: Model) -> Iterator[str]:
    """The URL of a page that shows it."""
    site = Site(records.StillSource(big_model), 15_000, "https://runbooks.example", now_ms=lambda: records.NOW_MS)
    with serving(make_app(site, ["drift.example"]), "127.0.0.1", 0) as url:
        yield url


@pytest.fixture(scope="module")  # playwright's event loop runs in this thread as long as it lives
def chromium() -> Iterator[Browser]:
    """The system's Chromium; without it the test is skipped, in CI it fails."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        message = "no chromium on the path: apt-get install chromium"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
