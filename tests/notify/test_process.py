"""NOTIFY as a process, on a real Kafka."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer
from msgspec import structs

from stream_interp.kafka.client import producer_config
from stream_interp.kafka.control import publish_controls
from stream_interp.records.alert import Alert, encode_alert
from stream_interp.records.control import Order, make_order
from stream_interp.records.delivery import Delivery, encode_delivery
from stream_interp.records.envelope import Envelope, read_json
from stream_interp.records.heartbeat import Heartbeat, encode_heartbeat
from stream_interp.records.lane import Lane
from tests.notify.alerts import alert
from tests.notify.bench import Bench, Receiver, receiver
from tests.workers import Worker, until


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Bench:
    bench = Bench(kafka_bootstrap, topic_prefix, tmp_path)
    bench.apply_topics()
    return bench


def now_alert(number: int, transition: str = "opened", **more: object) -> Alert:
    """Of a lane of its own, now."""
    lane = Lane(model_id=f"m{number}", hook_name="h")
    return alert(transition, f"incident{number}", at_s=time.time() - 1_800_000_000, lane=lane, **more)


def heartbeat(process: str, **more: object) -> Heartbeat:
    now_ms = round(time.time() * 1000)
    kind = process.partition("-")[0]
    base = Heartbeat(process_id=process, kind=kind, as_of_ms=now_ms, started_at_ms=now_ms, version="0")  # type: ignore[arg-type]
    return structs.replace(base, **more)


def ready(worker: Worker) -> bool:
    return "records read in" in worker.text


def latencies_s(hook: Receiver, sent_s: dict[str, float]) -> list[float]:
    return sorted(call.at_s - sent_s[call.webhook_id] for call in hook.calls if call.webhook_id in sent_s)


def test_first_notifications_reach_a_webhook_at_once(bench: Bench) -> None:
    with receiver() as hook, bench.worker(bench.sinks(hook)) as worker:
        until(lambda: ready(worker), worker)
        sent_s, sender = {}, Producer(producer_config(bench.kafka, transactional_id=bench.prefix + "t"))
        sender.init_transactions()
        for number in range(60):
            one = now_alert(number)
            envelope = encode_alert(one)
            sender.begin_transaction()
            sender.produce(bench.prefix + "interp.alerts", key=envelope.key, value=envelope.value)
            sender.flush()
            sent_s[one.event_id] = time.time()
            sender.commit_transaction()
            time.sleep(0.05)
        until(lambda: len(hook.calls) >= 60, worker, 20)
    found = latencies_s(hook, sent_s)
    print(f"append to receiver: median {found[30]:.3f} s, worst {found[-1]:.3f} s")
    assert len(found) == 60
    assert found[-2] <= 0.5


def test_alerts_of_aborted_transactions_are_never_sent(bench: Bench) -> None:
    aborted, committed, last = now_alert(1), now_alert(2), now_alert(3)
    with receiver() as hook, bench.worker(bench.sinks(hook)) as worker:
        until(lambda: ready(worker), worker)
        sender = Producer(producer_config(bench.kafka, transactional_id=bench.prefix + "t"))
        sender.init_transactions()
        for one, end in ((aborted, sender.abort_transaction), (committed, sender.commit_transaction)):
            sender.begin_transaction()
            sender.produce(bench.prefix + "interp.alerts", key=b"k", value=encode_alert(one).value)
            sender.flush()
            time.sleep(0.5)  # on the log, undecided
            assert hook.ids == []
            end()
        until(lambda: hook.ids == [committed.event_id], worker, 20)
        sender.begin_transaction()
        sender.produce(bench.prefix + "interp.alerts", key=b"k", value=encode_alert(last).value)
        sender.abort_transaction()
        worker.kill()
        with bench.worker(bench.sinks(hook), instance="1") as other:
            until(lambda: ready(other), other)
            time.sleep(1.0)
            assert hook.ids == [committed.event_id]
            assert "stands still" not in other.text


def test_killed_five_times_while_the_receiver_is_down_everything_is_delivered(bench: Bench) -> None:
    sent: list[Alert] = []
    with receiver() as hook:
        hook.up, down_s = False, time.monotonic()
        for life in range(5):
            with bench.worker(bench.sinks(hook)) as worker:
                until(lambda: ready(worker), worker)
                sent += [now_alert(10 * life + number) for number in range(10)]
                bench.produce("interp.alerts", map(encode_alert, sent[-10:]))
                until(partial(hook.refused_more_than, hook.refused), worker)
                kill_s = 12 * (life + 1) + random.Random(life).uniform(0.0, 0.5)
                until(lambda: time.monotonic() >= down_s + kill_s, worker)  # noqa: B023 - it returns before the next
                worker.kill()
        assert time.monotonic() - down_s >= 60
        bench.produce("interp.alerts", [encode_alert(sent_in_between := now_alert(99))])
        hook.up = True
        for _ in range(5):  # and killed while it delivers
            with bench.worker(bench.sinks(hook)) as worker:
                until(partial(hook.took_more_than, min(50, len(hook.calls))), worker)
                worker.kill()
        with bench.worker(bench.sinks(hook)) as worker:
            expected = {one.event_id for one in [*sent, sent_in_between]}
            until(lambda: set(hook.ids) >= expected, worker)
            until(lambda: sum(d.outcome == "delivered" for d in bench.deliveries().values()) >= 51, worker)
    times = Counter(hook.ids)
    print(f"{len(expected)} alerts, {len(hook.calls) - len(times)} doubles")
    assert set(times) == expected  # each double has the id of its first
    assert all(call.event_ids == [call.webhook_id] for call in hook.calls)


def test_a_dead_sink_delays_no_other_and_is_said_to_be_failing(bench: Bench) -> None:
    with receiver() as dead, receiver() as live:
        dead.up = False
        options = {"notify__attempts": "2"}
        with bench.worker(bench.sinks(dead, live), **options) as worker:
            until(lambda: ready(worker), worker)
            sent_s = {}
            for number in range(20):
                one = now_alert(number)
                bench.produce("interp.alerts", [encode_alert(one)])
                sent_s[one.event_id] = time.time()
            until(lambda: len(live.calls) >= 20, worker, 20)
            assert latencies_s(live, sent_s)[-1] < 1.0
            until(lambda: len(bench.values("interp.dlq")) >= 20, worker)
            until(lambda: b'"sinks_failing":["hook0"]' in bench.values("interp.heartbeat")[-1], worker, 30)
            outcomes = Counter((d.sink, d.outcome) for d in bench.deliveries().values())
            assert outcomes["hook0", "failed"] == 20
            assert outcomes["hook1", "delivered"] == 20
            dead.up = True
            bench.produce("interp.alerts", [encode_alert(now_alert(1, "updated"))])
            until(lambda: len(dead.calls) == 1, worker, 20)
            until(lambda: b'"sinks_failing":[]' in bench.values("interp.heartbeat")[-1], worker, 30)


def test_a_dead_detector_is_told_and_so_is_its_return(bench: Bench) -> None:
    options = {"notify__silent_after_s": "6"}
    with receiver() as hook, bench.worker(bench.sinks(hook), **options) as worker:
        until(lambda: ready(worker), worker)
        last = heartbeat("detect-0@host:1")
        bench.produce("interp.heartbeat", [encode_heartbeat(last), encode_heartbeat(heartbeat("encode-0@host:2"))])
        until(lambda: len(hook.calls) == 2, worker, 20)
        titles = {call.body["data"]["title"] for call in hook.calls}
        assert titles == {"detector silent: detect-0@host:1", "detector silent: encode-0@host:2"}
        worker.kill()
        with bench.worker(bench.sinks(hook), instance="1", **options) as other:
            until(lambda: ready(other), other)
            bench.produce("interp.heartbeat", [encode_heartbeat(heartbeat("detect-0@host:3"))])
            until(lambda: len(hook.calls) == 3, other, 20)
        assert hook.calls[-1].body["data"]["phase"] == "resolved"
        assert hook.calls[-1].body["data"]["story"] in hook.ids[:2]


def test_an_order_to_be_silent_holds_without_a_detector_and_garbage_stops_nothing(bench: Bench) -> None:
    now_ms = round(time.time() * 1000)
    silent, loud = now_alert(1), now_alert(2)
    order = Order(kind="silence", lane=silent.lane, version=now_ms - 1_000, until_ms=now_ms + 3_600_000)
    hostile = now_alert(3, event_id="e" * 2_000)
    with receiver() as hook, bench.worker(bench.sinks(hook)) as worker:
        until(lambda: ready(worker), worker)
        publish_controls(bench.kafka, [make_order(order, "ann\x1b[31m" * 1_000, "known")])
        time.sleep(1.0)
        garbage = [Envelope(b"k", [], value) for value in (b"{}", b"\xff", None, b"[" * 100_000)]
        records = [*garbage, encode_alert(hostile), encode_alert(silent), encode_alert(loud)]
        bench.produce("interp.alerts", records)
        until(lambda: hook.ids == [loud.event_id], worker, 20)
        until(lambda: f"hook0/{silent.event_id}" in bench.deliveries(), worker, 20)
        held = bench.deliveries()[f"hook0/{silent.event_id}"]
        assert held.outcome == "silenced"
        assert "\x1b" not in held.detail
        assert len(held.detail) <= 300
        unsilence = Order(kind="unsilence", lane=silent.lane, version=round(time.time() * 1000))
        publish_controls(bench.kafka, [make_order(unsilence, "ann", "over")])
        until(lambda: hook.ids == [loud.event_id, silent.event_id], worker, 20)


def test_it_stops_cleanly_and_hands_over_to_the_one_that_waits(bench: Bench) -> None:
    with receiver() as hook, bench.worker(bench.sinks(hook)) as first, bench.worker(bench.sinks(hook), "1") as second:
        until(lambda: ready(first) or ready(second), first)
        bench.produce("interp.alerts", [encode_alert(now_alert(1))])
        until(lambda: len(hook.calls) == 1, first)
        leading, waiting = (first, second) if ready(first) else (second, first)
        assert leading.terminate() == 0
        bench.produce("interp.alerts", [encode_alert(now_alert(2))])
        until(lambda: len(hook.calls) == 2, waiting, 40)
        beats = [read_json(value, Heartbeat) for value in bench.values("interp.heartbeat")]
        assert any(beat.stopping for beat in beats)


def test_the_dead_man_is_called_while_all_is_well(bench: Bench) -> None:
    with receiver() as hook:
        sinks = f'[{{"name":"dead-man","type":"deadman","url":"{hook.url}","allow":["127.0.0.1"],"interval_s":0.5}}]'
        with bench.worker(sinks) as worker:
            until(lambda: len(hook.calls) >= 3, worker, 40)
            worker.kill()
            known = len(hook.calls)
            time.sleep(1.5)
            assert len(hook.calls) == known


def test_a_second_one_of_the_same_instance_is_refused(bench: Bench) -> None:
    with receiver() as hook, bench.worker(bench.sinks(hook)) as first:
        until(lambda: ready(first), first)
        with bench.worker(bench.sinks(hook)) as second:
            assert second.process.wait(40) == 2, second.text
            assert "kafka.instance" in second.text
        bench.produce("interp.alerts", [encode_alert(now_alert(1))])
        until(lambda: len(hook.calls) == 1, first, 40)


def test_deliveries_of_alerts_that_the_log_has_lost_are_taken_off_the_topic(bench: Bench) -> None:
    now_ms = round(time.time() * 1000)
    kept = now_alert(1)
    old, newer = (
        Delivery(sink="hook0", event_id=name, outcome="delivered", attempts=1, at_ms=now_ms - days * 86_400_000)
        for name, days in (("lost", 3), ("perhaps", 0))
    )
    began = Delivery(sink="hook0", event_id="begin", outcome="begun", attempts=0, at_ms=now_ms - 10 * 86_400_000)
    bench.produce("interp.deliveries", map(encode_delivery, (began, old, newer)))
    bench.produce("interp.alerts", [encode_alert(kept)])
    with receiver() as hook, bench.worker(bench.sinks(hook)) as worker:
        until(lambda: "hook0/lost" not in bench.deliveries(), worker, 40)
        until(lambda: hook.ids == [kept.event_id], worker, 20)
        assert set(bench.deliveries()) >= {"hook0/begin", "hook0/perhaps"}
