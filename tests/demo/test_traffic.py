import pytest
import torch

from stream_interp.demo.applications import after_market_shift, batches, sample
from stream_interp.demo.credit_model import HIDDEN, HOOK, CreditRisk
from stream_interp.demo.traffic import BATCH, MAX_AHEAD, RATE, Traffic

ROWS, _ = sample(200, seed=1)


class Recorder:
    """What `instrument` needs of a producer."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.acts: list[torch.Tensor] = []

    def send_batch(self, hook_name, request_ids, arrays, *, group_keys=None, segments=None):
        assert hook_name == HOOK
        self.ids += request_ids
        self.acts.append(arrays["acts"].clone())
        return True

    def drop(self, reason, detail="", requests=1):
        raise AssertionError(f"{reason}: {detail}")


@pytest.fixture
def clock():
    """Monotonic seconds, advanced by hand: `clock.s += 1`."""

    class Clock:
        s = 100.0

        def __call__(self) -> float:
            return self.s

    return Clock()


def traffic_of(clock) -> tuple[Traffic, Recorder, CreditRisk]:
    torch.manual_seed(0)
    model, recorder = CreditRisk(ROWS), Recorder()
    return Traffic(model, recorder, batches(2, BATCH), clock), recorder, model


def test_it_keeps_the_rate_and_numbers_applications_from_1(clock):
    traffic, recorder, _ = traffic_of(clock)
    for _ in range(11):
        traffic.send_due(reported=traffic.sent)
        clock.s += 0.1
    assert traffic.sent == pytest.approx(RATE, abs=2 * BATCH)
    assert recorder.ids == [f"application-{i:07}" for i in range(1, traffic.sent + 1)]
    assert {acts.shape for acts in recorder.acts} == {(BATCH, 1, HIDDEN)}


def test_it_waits_for_detect_and_then_does_not_rush(clock):
    traffic, _, _ = traffic_of(clock)
    for _ in range(100):
        clock.s += 0.1
        traffic.send_due(reported=0)
    assert traffic.sent == MAX_AHEAD
    clock.s += 60.0
    traffic.send_due(reported=MAX_AHEAD)
    assert traffic.sent <= MAX_AHEAD + 0.2 * RATE + 2 * BATCH


def test_the_shift_begins_with_the_application_that_it_names(clock):
    traffic, recorder, model = traffic_of(clock)
    traffic.send_due(reported=0)
    traffic.plant()
    assert traffic.planted_at_request == traffic.sent + 1 == BATCH + 1
    clock.s += BATCH / RATE
    traffic.send_due(reported=0)
    stream = batches(2, BATCH)
    expected = [next(stream), after_market_shift(next(stream))]
    for acts, rows in zip(recorder.acts, expected, strict=True):
        assert torch.allclose(acts[:, 0], model.activations(torch.from_numpy(rows).float()), atol=1e-5)
