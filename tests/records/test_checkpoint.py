import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_interp.errors import IntegrityError
from stream_interp.records import checkpoint
from stream_interp.records.checkpoint import Checkpoint, encode_checkpoint, make_checkpoint, newest_checkpoint
from tests.topics.samples import LANE, POSITION


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "PART_BYTES", 10)


def made(generation: int, body: bytes) -> Checkpoint:
    return make_checkpoint(LANE, generation, POSITION, "0.1.0", "cd" * 32, body)


def newest(log: list[tuple[str, bytes]]) -> Checkpoint | None:
    return newest_checkpoint(LANE.lane_id, dict(log))


def records(*checkpoints: Checkpoint) -> list[tuple[str, bytes]]:
    return [(r.key.decode(), r.value or b"") for c in checkpoints for r in encode_checkpoint(c)]


def test_two_generations_lie_in_two_slots():
    keys = {key for key, _ in records(made(1, b"x" * 25), made(2, b"y" * 5))}
    assert keys == {f"{LANE.lane_id}/{k}" for k in ("1/0", "1/1", "1/2", "1/manifest", "0/0", "0/manifest")}


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5, unique=True), st.data())
def test_wherever_the_log_ends_the_last_whole_checkpoint_is_found(bodies: list[bytes], data: st.DataObject):
    checkpoints = [made(generation, body) for generation, body in enumerate(bodies)]
    log = records(*checkpoints)
    end = data.draw(st.integers(0, len(log)))
    ends = [len(records(*checkpoints[: n + 1])) for n in range(len(checkpoints))]
    whole = [c for c, last in zip(checkpoints, ends, strict=True) if last <= end]
    assert newest(log[:end]) == (whole[-1] if whole else None)


def test_a_spoiled_slot_leaves_the_other():
    old, new = made(4, b"old"), made(5, b"new")
    assert newest([*records(old, new), (f"{new.manifest.key}/0", b"spoiled")]) == old
    assert newest([*records(old, new), (f"{new.manifest.key}/0", b"spoiled"), (f"{old.manifest.key}/0", b"")]) is None


def test_parts_of_a_larger_checkpoint_before_do_no_harm():
    assert newest(records(made(2, b"x" * 50), made(3, b"y"), made(4, b"z"))) == made(4, b"z")


def test_other_lanes_are_not_looked_at():
    assert newest_checkpoint("another", dict(records(made(1, b"x")))) is None


def test_a_manifest_that_cannot_be_read_is_an_integrity_error():
    with pytest.raises(IntegrityError, match="CheckpointManifest"):
        newest([(f"{LANE.lane_id}/0/manifest", b"{}")])
