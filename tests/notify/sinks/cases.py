"""Notifications as sinks meet them: every kind in every phase, and text that somebody hostile wrote."""

from __future__ import annotations

from itertools import product
from typing import get_args

from msgspec.structs import replace

from stream_interp.notify.notification import Kind, Notification, Phase
from stream_interp.records.alert import Alert, FeatureDrift, Position
from stream_interp.records.lane import Lane

HOSTILE = {
    "html": "<script>alert(1)</script><!channel> <@U123> <https://evil.test|runbook> &amp; @channel @here",
    "ansi": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J\x08\x00 \u202eesrever",
    "newlines": "one\r\nBcc: everyone@evil.test\r\n\r\nbody\n.\nMAIL FROM:<x>\u2028two\x85three\x0bfour",
    "long": "& <" * 3_400,
    "surrogates": "lone \ud83d and \udfff halves",
    "empty": "",
}

LANE = Lane(model_id="credit-risk", hook_name="hidden", sae_fingerprint="f" * 64)
FEATURE = FeatureDrift(
    feature=424242, direction="up", log_e=21.0, log_threshold=20.0, rate_baseline=0.01, rate_now=0.2,
    detected_request=9, label="late payments",
)  # fmt: skip
ALERT = Alert(
    event_id="e" * 32, lane=LANE, incident_id="i1", transition="opened", severity="critical", status="critical",
    cause_hint="features", features_drifted=1, features=[FEATURE], at_ms=1_700_000_000_000,
    position=Position(partition=0, offset=7),
)  # fmt: skip
PLAIN = Notification(
    id="e" * 32, kind="alert", story="incident/5d4cf1a2/1", phase="firing", severity="critical",
    title="credit-risk/hidden: 1 feature drifted", text="feature 424242 up: 0.01 → 0.2", at_ms=1_700_000_000_000,
    started_at_ms=1_699_999_990_000, event_ids=["e" * 32], alert=ALERT,
    links={"ui": "https://ui.test/lanes/5d4c?a=1&b=2", "runbook": "deploy/runbooks/features.md"},
)  # fmt: skip
TEST = replace(PLAIN, kind="test", alert=None, title="a test")


def hostile(text: str) -> Notification:
    """The text wherever a notification holds text."""
    lane = replace(LANE, tenant=text, model_id=text, hook_name=text) if text.isascii() else LANE
    alert = replace(ALERT, lane=lane, cause_hint=text, features=[replace(FEATURE, label=text)])
    return replace(
        PLAIN, id=text, story=text, title=text, text=text, alert=alert, event_ids=[text],
        links={"ui": f"https://ui.test/{text}", "runbook": text, text: "https://ui.test/"},
    )  # fmt: skip


NOTIFICATIONS = {
    **{
        f"{kind}-{phase}-{'alert' if alert else 'bare'}": replace(PLAIN, kind=kind, phase=phase, alert=alert)
        for kind, phase, alert in product(get_args(Kind), get_args(Phase), (ALERT, None))
    },
    **{f"hostile-{name}": hostile(text) for name, text in HOSTILE.items()},
    "hostile-test": replace(hostile(HOSTILE["ansi"]), kind="test"),
}
