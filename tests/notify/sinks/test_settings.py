"""What each type of sink asks of its settings, and the example in its file."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stream_interp.errors import UsageError
from stream_interp.notify.sinks import SINKS, make_sink
from stream_interp.settings import SinkSettings
from tests.notify.sinks import fakes

REMOTE = [kind for kind in SINKS if kind != "console"]

NEEDED = {
    "webhook": ("url", "secret_file"),
    "alertmanager": ("url",),
    "slack": ("secret_file",),
    "pagerduty": ("secret_file",),
    "email": ("url", "sender", "to"),
    "deadman": ("url",),
}


@pytest.mark.parametrize("kind", REMOTE)
def test_missing_settings_name_the_sink(kind: str, tmp_path: Path) -> None:
    full = fakes.settings(kind, 1, tmp_path)
    for name in NEEDED[kind]:
        empty: dict[str, Any] = {name: [] if name == "to" else ""} | ({"url": ""} if kind == "slack" else {})
        with pytest.raises(UsageError, match=rf"^notify\.sinks\[mine\]: {name} is (missing|empty)"):
            make_sink(replace(full, **empty), fakes.tools())


@pytest.mark.parametrize("kind", REMOTE)
@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/secret-path",
        "https://",
        "h/secret-path",
        "https://u:hunter2-secret@h/",
        "https://h:99999/",
        "https://h/a b",
    ],
)
def test_wrong_addresses_are_told_without_showing_them(kind: str, url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^notify\.sinks\[mine\]: url ") as caught:
        make_sink(
            fakes.settings(kind, 1, tmp_path, url=url.replace("https", "smtps") if kind == "email" else url),
            fakes.tools(),
        )
    assert not [secret for secret in fakes.SECRETS if secret in str(caught.value)]


@pytest.mark.parametrize("kind", REMOTE)
@pytest.mark.parametrize("entry", ["10.0.0.1/8", "", "http://h", "*.internal", "10.0.0.0/33"])
def test_wrong_allow_entries_are_told(kind: str, entry: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^notify\.sinks\[mine\]: allow holds"):
        make_sink(fakes.settings(kind, 1, tmp_path, allow=[entry]), fakes.tools())


def test_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"notify\.sinks\[x\]: unknown type 'pager'.*console.*deadman"):
        make_sink(SinkSettings(name="x", type="pager"), fakes.tools())


@pytest.mark.parametrize("kind", SINKS)
@pytest.mark.parametrize("optional", [False, True])
def test_the_example_in_the_docstring_makes_a_sink(kind: str, optional: bool, tmp_path: Path) -> None:
    text = importlib.import_module(f"stream_interp.notify.sinks.{kind}").__doc__ or ""
    example = text[text.index("[[notify.sinks]]") :].split("\n\n")[0]
    if optional:
        example = "\n".join(line.removeprefix("# ") for line in example.splitlines())
    (entry,) = tomllib.loads(example)["notify"]["sinks"]
    settings = msgspec.convert(entry, SinkSettings)
    secret = {"webhook": fakes.KEY, "slack": "https://hooks.slack.com/services/T0/B0/X"}.get(kind, fakes.PASSWORD)
    if settings.secret_file:
        settings = replace(settings, secret_file=fakes.secret_file(tmp_path, secret))
    assert settings.type == kind
    make_sink(settings, fakes.tools())
