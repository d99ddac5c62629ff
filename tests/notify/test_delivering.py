"""One sink at work, with a clock that waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stream_interp.notify.backoff import wait_s
from stream_interp.notify.delivering import AT_ONCE, QUEUE, UNRECORDED, Delivering
from stream_interp.notify.desk import Send
from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks import SinkError
from stream_interp.notify.story import Place
from stream_interp.notify.wording import Wording
from stream_interp.observe.distributions import Distributions
from stream_interp.records.delivery import Delivery
from stream_interp.records.dlq import REASONS, DeadLetter

AT_MS = 1_800_000_000_000


class Books:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.letters: list[DeadLetter] = []

    async def record(self, deliveries: Any) -> None:
        self.deliveries += deliveries

    async def set_aside(self, letter: DeadLetter, key: bytes) -> None:
        self.letters.append(letter)


class Fake:
    """A sink that does what its script says."""

    def __init__(self, *script: BaseException | None) -> None:
        self.script, self.sent = list(script), list[str]()

    async def send(self, notification: Notification) -> None:
        self.sent.append(notification.id)
        step = self.script.pop(0) if self.script else None
        if step is not None:
            raise step

    async def close(self) -> None:
        """Nothing."""


def notification(number: int = 0) -> Notification:
    return Wording("", "").of_test(f"s{number}", AT_MS)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_interp.notify.delivering.wait_s", lambda *_: 0.0)


def delivering(sink: Any, books: Books, done: list[bool], attempts: int = 3, timeout_s: float = 5.0) -> Delivering:
    return Delivering(
        "s", sink, timeout_s, attempts, books, lambda _n, delivered, _at: done.append(delivered),  # type: ignore[arg-type]
        lambda: AT_MS + 250, lambda: 0.0, Distributions("delivery_latency_seconds"),
    )  # fmt: skip


def test_retries_carry_the_same_id_and_the_outcome_is_recorded_after(books: Books) -> None:
    async def work() -> None:
        sink, done = Fake(SinkError("503", retry=True), SinkError("503", retry=True)), list[bool]()
        worker = delivering(sink, books, done)
        worker.put(Send(notification(), None))
        while not done:
            await asyncio.sleep(0)
        assert len(sink.sent) == 3
        assert len(set(sink.sent)) == 1
        assert done == [True]
        assert [(d.outcome, d.attempts) for d in books.deliveries] == [("delivered", 3)]
        assert not worker.failing
        await worker.close(0)

    run(work)


def test_given_up_is_a_dead_letter_and_failing_until_the_next_success(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        sink, done = Fake(*[SinkError("down", retry=True)] * 3), list[bool]()
        worker = delivering(sink, books, done)
        worker.put(Send(notification(), Place(0, 41, AT_MS)))
        while not done:
            await asyncio.sleep(0)
        assert worker.failing
        assert [(letter.reason, letter.offset) for letter in books.letters] == [("undelivered", 41)]
        assert books.letters[0].reason in REASONS
        assert [d.outcome for d in books.deliveries] == ["failed"]
        worker.put(Send(notification(1), None))
        while len(done) < 2:
            await asyncio.sleep(0)
        assert not worker.failing
        assert worker.counts == {"failed": 1, "delivered": 1}
        await worker.close(0)
        assert {getattr(record, "sink", None) for record in caplog.records} == {worker.name}

    run(work)


def test_what_may_not_be_tried_again_is_given_up_at_once(books: Books) -> None:
    async def work() -> None:
        sink, done = Fake(SinkError("401", retry=False)), list[bool]()
        worker = delivering(sink, books, done)
        worker.put(Send(notification(), None))
        while not done:
            await asyncio.sleep(0)
        assert len(sink.sent) == 1
        assert books.deliveries[0].attempts == 1
        await worker.close(0)

    run(work)


def test_a_sink_that_breaks_its_contract_ends_nothing(books: Books) -> None:
    async def work() -> None:
        sink, done = Fake(ZeroDivisionError()), list[bool]()
        worker = delivering(sink, books, done)
        worker.put(Send(notification(), None))
        while not done:
            await asyncio.sleep(0)
        worker.raise_if_ended()
        assert done == [True]
        await worker.close(0)

    run(work)


def test_one_story_that_hangs_does_not_hold_up_the_others(books: Books) -> None:
    class Hanging(Fake):
        async def send(self, notification: Notification) -> None:
            if not self.sent:
                self.sent.append(notification.id)
                await asyncio.sleep(3600)
            await super().send(notification)

    async def work() -> None:
        sink, done = Hanging(), list[bool]()
        worker = delivering(sink, books, done)
        for number in range(20):
            worker.put(Send(notification(number), None))
        while len(done) < 19 or worker.length > 1:
            await asyncio.sleep(0)
        assert sink.sent.count(notification(0).id) == 1
        await worker.close(0)

    run(work)


def test_a_slow_ledger_holds_up_no_sink_and_bounds_what_a_kill_may_repeat(books: Books) -> None:
    gate = asyncio.Event()

    class Slow(Books):
        async def record(self, deliveries: Any) -> None:
            await gate.wait()
            await super().record(deliveries)

    async def work() -> None:
        sink, done, slow = Fake(), list[bool](), Slow()
        worker = delivering(sink, slow, done)
        for number in range(QUEUE):
            worker.put(Send(notification(number), None))
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert len(sink.sent) == UNRECORDED > AT_ONCE
        assert not done
        gate.set()
        while len(done) < QUEUE:
            await asyncio.sleep(0)
        assert len(slow.deliveries) == len(sink.sent) == QUEUE
        await worker.close(1)

    run(work)


def test_a_defect_while_recording_is_seen(books: Books) -> None:
    class Broken(Books):
        async def record(self, deliveries: Any) -> None:
            raise ZeroDivisionError

    async def work() -> None:
        worker = delivering(Fake(), Broken(), [])
        worker.put(Send(notification(), None))
        for _ in range(50):
            await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            worker.raise_if_ended()
        await worker.close(0)

    run(work)


def test_the_queue_is_bounded(books: Books) -> None:
    async def work() -> None:
        worker = delivering(Fake(), books, [])
        assert worker.room == QUEUE
        for number in range(QUEUE):
            worker.put(Send(notification(number), None))
        assert worker.room == 0
        with pytest.raises(asyncio.QueueFull):
            worker.put(Send(notification(QUEUE), None))
        await worker.close(0)
        assert worker.room == 0

    run(work)


def test_waits_grow_and_outlive_a_minute_by_default() -> None:
    assert AT_ONCE >= 2
    assert wait_s(1, 0.0) == 1.0
    assert wait_s(1, 0.999) < 2.0
    assert wait_s(50, 0.5) <= 300.0
    assert wait_s(1, 0.5, retry_after_s=30.0) == 30.0
    assert sum(wait_s(tries, 0.0) for tries in range(1, 8)) > 120
