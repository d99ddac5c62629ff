"""The page in Chromium on what real processes wrote: a lane from ok to critical, and one of a hostile name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from stream_interp.embedded.ports import free_ports
from tests.deploy.scraper import get
from tests.integration.world import HOOK, MODEL, CommandLine, write_activations, write_sae
from tests.ui.test_app import NASTY
from tests.ui.test_chromium import Heard, findings

SITE = ("--model-id", MODEL, "--hook", HOOK)
HOSTILE = "".join(c for c in NASTY if c.isprintable())
SETTINGS = {"STATUS__INTERVAL_S": "0.5", "CHECKPOINT__INTERVAL_S": "1", "WINDOW__MAX_AGE_S": "0.5"}


@pytest.fixture(scope="module")
def real(kafka_bootstrap: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of `stream-interp ui` while everything runs."""
    folder = tmp_path_factory.mktemp("real")
    command = CommandLine(kafka_bootstrap, redis_url, f"{folder.name}.", folder, SETTINGS)
    command.ok("topics", "apply")
    baseline = write_activations(folder / "baseline.safetensors", 800, seed=1)
    command.ok("baseline", "build", "--sae", write_sae(folder / "sae"), "--from", baseline, *SITE)
    at = f"127.0.0.1:{free_ports(1)[0]}"
    with command.process("run", "--sae", folder / "sae"), command.process("ui", "--listen", at):
        tell_a_story(command, folder)
        yield f"http://{at}"


def tell_a_story(command: CommandLine, folder: Path) -> None:
    null = write_activations(folder / "null.safetensors", 200, seed=2)
    shift = write_activations(folder / "shift.safetensors", 120, seed=3, shift=0.7)
    command.ok("produce", "--from", null, *SITE)
    command.ok("produce", "--from", null, "--model-id", HOSTILE, "--hook", HOSTILE)
    command.wait_for_state("ok")
    command.ok("produce", "--from", shift, *SITE)
    command.wait_for_state("critical")
    command.ok("alerts", "ack", "latest", "--reason", HOSTILE)


def every_page(page: Page, url: str) -> list[str]:
    """All that links lead to from the first view."""
    found = ["/"]
    for path in found:
        page.goto(url + path)
        links = page.locator('a[href^="/"]').evaluate_all("all => all.map(a => a.getAttribute('href'))")
        found += [link for link in dict.fromkeys(links) if link not in found and not link.startswith("/api")]
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_that_is_linked_is_whole(chromium: Browser, real: str, width: int, scheme: str) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    heard = Heard(page)
    paths = every_page(page, real)
    assert sum(path.startswith("/lanes/") for path in paths) == 2
    assert sum(path.startswith("/incidents/") for path in paths) == 1
    for path in paths:
        page.goto(real + path)
        assert page.locator("h1").count() == 1
        assert findings(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        json_url = page.get_by_role("link", name="This view as JSON").get_attribute("href")
        status, body = get(f"{real}{json_url}")
        assert (status, json.loads(body)["schema_version"]) == (200, 1)
    assert heard.complaints == []
    context.close()


def test_an_incident_is_told_with_its_exact_path(chromium: Browser, real: str) -> None:
    page = chromium.new_page()
    page.goto(real)
    page.locator("table.incidents tbody .cause a").first.click()
    for _ in range(100):
        if "Exact, window by window" in page.inner_text("main"):
            break
        page.wait_for_timeout(200)
        page.reload()
    text = page.inner_text("main")
    assert "Exact, window by window" in text
    assert "ack by" in text
    assert HOSTILE[:60] in text
    assert page.locator("table.features tbody tr").count() > 0
    page.close()
