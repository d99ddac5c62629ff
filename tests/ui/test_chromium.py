"""The page as people see it: headless Chromium, axe-core, both colour schemes, both widths."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec import structs
from playwright.sync_api import Browser, Page, Request, Response

from stream_interp.records.status import encode_status
from stream_interp.ui.model.model import Model
from stream_interp.ui.server import serving
from stream_interp.ui.web.app import Site, make_app
from tests.ui.records import NOW_MS, StillSource, feed, incident_id, lane, status
from tests.ui.test_app import ALL, hostile_page

__all__ = ["hostile_page"]

FIRST_VIEW_MS = 1_000
FIRST_VIEW_BYTES = 200_000
SERIOUS = {"serious", "critical"}
LEFT = "net::ERR_ABORTED"  # the test went on before the browser had its icon


class Heard:
    """What a page complained about."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _failed(self, request: Request) -> None:
        if request.failure != LEFT:
            self.complaints.append(f"failed: {request.failure} {request.url}")

    def _answered(self, response: Response) -> None:
        if not response.ok:
            self.complaints.append(f"{response.status} {response.url}")


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def findings(page: Page) -> list[str]:
    return [
        f"{v['impact']} {v['id']}: {[n['html'][:160] for n in v['nodes'][:3]]}"
        for v in Axe().run(page).response["violations"]
        if v["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_complaint_no_serious_finding_no_sideways_scrolling(
    chromium: Browser, big_page: str, width: int, scheme: str
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    heard = Heard(page)
    for path in ALL:
        page.goto(big_page + path)
        assert findings(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        assert page.locator("h1").count() == 1
    assert heard.complaints == []
    context.close()


def until(page: Page, expression: str) -> None:
    """Playwright's own waiting evaluates text inside the page, which its policy forbids."""
    deadline_s = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline_s, expression
        page.wait_for_timeout(50)


def test_the_first_view_of_50_lanes_with_200_incidents_each(chromium: Browser, big_page: str) -> None:
    taken_ms = []
    for _ in range(3):  # the best of three: whatever else the machine does is not the page's
        context, sizes = chromium.new_context(viewport={"width": 1280, "height": 900}), list[int]()
        page = context.new_page()  # nothing cached: a first view indeed
        page.on("response", lambda response, sizes=sizes: sizes.append(len(response.body())))
        page.goto(big_page)
        assert page.locator("table.lanes tbody tr").count() == 50
        assert len(sizes) >= 3
        assert sum(sizes) <= FIRST_VIEW_BYTES
        until(page, "performance.getEntriesByName('first-contentful-paint').length")
        load_ms = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        paint_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        taken_ms.append(max(load_ms, paint_ms))
        context.close()
    assert min(taken_ms) <= FIRST_VIEW_MS


def test_hostile_names_run_nothing_and_break_no_layout(page: Page, hostile_page: tuple[str, list[str]]) -> None:
    url, paths = hostile_page
    heard = Heard(page)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for path in paths:
            page.goto(url + path)
            assert page.locator("img").count() == 0
            assert page.locator("script:not([src])").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)
    assert heard.complaints == []


def test_it_works_without_javascript(chromium: Browser, big_page: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(big_page)
    page.get_by_role("searchbox").fill("kyc blocks.7")
    page.get_by_role("button", name="Find").click()
    assert page.locator("table.lanes tbody tr").count() == 1
    page.get_by_role("link", name="kyc-screening / blocks.7.resid_post").click()
    assert page.get_by_role("heading", level=1).inner_text() == "kyc-screening / blocks.7.resid_post"
    page.locator("table.incidents tbody a").first.click()
    assert "/incidents/" in page.url
    assert page.get_by_role("heading", name="Features, by effect size").is_visible()
    assert not page.get_by_role("button", name="live").is_visible()
    context.close()


def test_by_keyboard_alone(page: Page, big_page: str) -> None:
    page.goto(big_page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_it_follows_by_itself_and_keeps_the_focus(page: Page) -> None:
    model = Model()
    feed(model, "interp.status", encode_status(status(lane())))
    source = StillSource(model)
    site = Site(source, 15_000, now_ms=lambda: NOW_MS)
    page.clock.install()
    with serving(make_app(site), "127.0.0.1", 0) as url:
        page.goto(url)
        assert page.locator("h1").inner_text() == "1 ok"
        page.locator("table.lanes a.name").focus()
        worse = structs.replace(status(lane()), state="critical", sequence=9)
        source.ask(lambda held: feed(held, "interp.status", encode_status(worse)))
        page.clock.run_for(6_000)
        until(page, "document.querySelector('h1').textContent.includes('critical')")
        assert "critical" in page.title()
        assert page.get_by_role("status").inner_text() == page.title()  # told to a screen reader
        assert page.evaluate("document.activeElement.className") == "name"


def test_the_page_goes_on_under_a_hand_and_says_so_where_it_does_not(page: Page, big_page: str) -> None:
    page.clock.install()
    page.goto(f"{big_page}/cuts")
    page.evaluate("document.querySelector('main h1').textContent = 'old'")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    page.clock.run_for(6_000)
    until(page, "document.querySelector('main h1').textContent === 'Cuts account'")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.locator("details[open]").count() == 1
    page.locator(".scroll td").first.click()  # a mouse in a table holds nothing back
    page.evaluate("document.querySelector('main h1').textContent = 'old'")
    page.clock.run_for(6_000)
    until(page, "document.querySelector('main h1').textContent === 'Cuts account'")
    assert page.evaluate("document.activeElement.className") == "scroll"
    page.evaluate("getSelection().selectAllChildren(document.querySelector('main h1'))")
    page.clock.run_for(6_000)
    until(page, "document.getElementById('live').textContent === 'held'")


def test_a_server_that_does_not_answer_is_not_called_live(page: Page, big_page: str) -> None:
    page.goto(big_page)
    page.route("**/*", lambda route: None)  # never answered
    page.evaluate("setTimeout(refresh, 0)")
    until(page, "document.getElementById('live').textContent === 'no answer'")


def test_commands_can_be_copied(chromium: Browser, big_page: str) -> None:
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    incident = incident_id(lane(), 200)
    page.goto(f"{big_page}/incidents/{incident}")
    page.get_by_role("button", name="copy the command to keep the evidence").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"stream-interp evidence {incident} --out ./evidence"
    context.close()


def test_a_phone_shows_what_moved_without_scrolling(page: Page, big_page: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{big_page}/incidents/{incident_id(lane(), 200)}")
    for heading in ("Now", "Median now"):
        box = page.get_by_role("columnheader", name=heading, exact=True).bounding_box()
        assert box is not None, heading
        assert box["x"] + box["width"] <= 390 - 14, heading
    page.goto(big_page)
    cause = page.locator("table.incidents .cause a").first
    cause.evaluate("e => { e.textContent = 'no windows' }")
    line_px = cause.evaluate("e => parseFloat(getComputedStyle(e).lineHeight)")
    box = cause.bounding_box()
    assert box is not None
    assert box["height"] <= line_px * len(cause.inner_text().split()) + 4  # broken between words alone
