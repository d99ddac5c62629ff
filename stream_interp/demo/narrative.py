"""What a person reads: numbered steps in short sentences, on the console that the command hands in (stderr)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel

from stream_interp.demo.table import TOP_FEATURES, describe, line, live_table
from stream_interp.demo.traffic import Traffic
from stream_interp.demo.verdict import Summary
from stream_interp.demo.watch import Watch
from stream_interp.records.alert import Alert

NOT_FOR_PRODUCTION = (
    "Not for production: Kafka and Valkey run without passwords on this machine's loopback interface only, "
    "and everything is gone when the demo ends."
)
NEXT_COMMANDS = (
    ("stream-interp demo --files ./credit", "this SAE, and activations before and after the shift, as files"),
    ("stream-interp dev", "Kafka and Valkey that stay until Ctrl-C"),
    ("stream-interp topics apply", "in a second terminal: make the topics"),
    ("stream-interp run --sae ./credit/sae", "encode and detect; the README's tour goes on from here"),
)
_STEPS = 6
_TABLE_EVERY_S, _LINE_EVERY_S = 0.25, 2.0
_RATE_OVER_S = 3.0


class Narrative:
    """Tells the story on a console."""

    def __init__(self, console: Console) -> None:
        self._console, self._step, self._rate = console, 0, _Rate()

    def notice(self) -> None:
        """The box at the top."""
        self._console.print(Panel(NOT_FOR_PRODUCTION, title="stream-interp demo"))

    def step(self, title: str) -> None:
        """The next numbered step."""
        self._step += 1
        self._console.print(f"\n[bold]{self._step}/{_STEPS}  {escape(title)}[/bold]", highlight=False, soft_wrap=True)

    def say(self, text: str, style: str | None = None) -> None:
        """One line of a step."""
        self._console.print(f"     {escape(text)}", style=style, highlight=False, soft_wrap=True)

    def alert(self, alert: Alert, request: int | None, meanings: Sequence[str]) -> None:
        """An alert as the subscriber got it."""
        where = f" at application {request}" if request else ""
        self.say(f"ALERT {alert.severity}: {alert.transition}{where}, cause {alert.cause_hint}", style="bold red")
        for score in alert.scores:
            then, now = _number(score.baseline_median), _number(score.now_median)
            self.say(f"  {score.score} {score.direction}: {then} → {now}")
        for feature in alert.features[:TOP_FEATURES]:
            self.say(f"  feature {describe(feature, meanings)}")

    def conclude(self, summary: Summary) -> None:
        """The verdict, and what to try now."""
        self.step("Shown" if summary.passed else "Fell short")
        for failure in summary.failures:
            self.say(failure, style="bold red")
        if summary.passed:
            self.say(
                f"Planted at application {summary.planted_at_request}, found at {summary.first_alert_request} after "
                f"{summary.seconds_to_alert:.1f} s; status {summary.status_before} → {summary.status_after}; "
                f"{summary.false_alarms} false alarms; {summary.seconds_total:.0f} s in all.",
                style="green",
            )
        self.say("Four commands to try next:")
        for command, what in NEXT_COMMANDS:
            self.say(f"  {command:<30} {what}")

    @contextmanager
    def following(self, watch: Watch, traffic: Traffic, meanings: Sequence[str]) -> Iterator[Callable[[], None]]:
        """Shows the live table while open, or a line now and then without a terminal. Call what it yields often."""
        every_s = _TABLE_EVERY_S if self._console.is_terminal else _LINE_EVERY_S
        shown_s = time.monotonic()
        with ExitStack() as stack:
            live = None
            if self._console.is_terminal:
                live = stack.enter_context(Live(console=self._console, auto_refresh=False))

            def show() -> None:
                nonlocal shown_s
                now_s = time.monotonic()
                rate = self._rate.of(watch.reported, now_s)
                if now_s - shown_s < every_s:
                    return
                shown_s = now_s
                if live is not None:
                    live.update(live_table(watch, traffic, rate, meanings), refresh=True)
                else:
                    self.say(line(watch, traffic, rate, meanings))

            yield show


class _Rate:
    """Growth per second of a count over the last seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def of(self, count: int, now_s: float) -> float:
        self._seen = [(at_s, n) for at_s, n in self._seen if now_s - at_s <= _RATE_OVER_S] + [(now_s, count)]
        first_s, first = self._seen[0]
        return (count - first) / (now_s - first_s) if now_s > first_s else 0.0


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
