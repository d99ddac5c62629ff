"""The report as an auditor sees it: a label that somebody hostile wrote hides no number."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from stream_interp.evidence.make import replayed
from stream_interp.evidence.pack import card_of
from stream_interp.evidence.report import render
from tests.evidence.stories import drifted, hostile
from tests.ui.conftest import chromium

__all__ = ["chromium"]


@pytest.mark.parametrize("width", [1280, 700])
def test_long_labels_leave_room_for_the_rates(chromium: Browser, tmp_path: Path, width: int) -> None:
    story = hostile()
    report = render(story, card_of(story, 1_800_000_000_000, {}), replayed(drifted())[1], [])
    (tmp_path / "report.html").write_text(report)
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator(".wide").count() >= 1
    assert page.evaluate("[...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)")
    page.close()
