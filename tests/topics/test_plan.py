import pytest

from stream_interp.kafka.topic_plan import Found, Step, Topic, plan, with_partitions
from stream_interp.kafka.topics import load_topics


def topic(name: str = "t", **changes: object) -> Topic:
    fields = {
        "name": name, "owner": "encode", "description": "d", "key": "k", "ordered": False, "partitions": 3,
        "partitions_why": "w", "replication": 3, "config": {"retention.ms": 1000}, "records": [],
    }  # fmt: skip
    return Topic(**(fields | changes))  # type: ignore[arg-type]


def found(partitions: int = 3, replication: int = 1, **config: str) -> Found:
    return Found(partitions, replication, {"retention.ms": "1000", "other": "x", **config})


def actions(steps: list[Step]) -> list[str]:
    return [step.action for step in steps]


def test_a_missing_topic_is_created_under_its_prefix_with_as_many_replicas_as_there_are_brokers():
    (step,) = plan([topic()], {}, brokers=2, prefix="v2.")
    assert (step.topic, step.action, step.partitions, step.replication) == ("v2.t", "create", 3, 2)
    assert step.config == {"retention.ms": "1000"}


def test_three_replicas_bring_two_in_sync():
    (step,) = plan([topic()], {}, brokers=5)
    assert (step.replication, step.config["min.insync.replicas"]) == (3, "2")


def test_replication_flag_rules_over_the_definition():
    assert plan([topic()], {}, brokers=3, replication=1)[0].replication == 1


def test_a_topic_as_declared_is_unchanged():
    assert actions(plan([topic()], {"t": found()}, brokers=1)) == ["unchanged"]


def test_a_drifted_entry_is_set_back_and_others_are_left_alone():
    now = Found(3, 1, {"retention.ms": "7", "other": "y"})
    (step,) = plan([topic()], {"t": now}, brokers=1)
    assert (step.action, step.config, step.config_before) == (
        "alter_config", {"retention.ms": "1000"}, {"retention.ms": "7"},
    )  # fmt: skip


def test_unordered_topics_grow():
    (step,) = plan([topic()], {"t": found(1)}, brokers=1)
    assert (step.action, step.partitions) == ("add_partitions", 3)


@pytest.mark.parametrize("ordered", [True, False])
def test_more_partitions_than_declared_are_fine(ordered: bool):
    assert actions(plan([topic(ordered=ordered)], {"t": found(9)}, brokers=1)) == ["unchanged"]


def test_ordered_topics_never_grow_and_the_migration_is_named():
    (step,) = plan([topic(ordered=True, backfill="copy it")], {"t": found(1)}, brokers=1)
    assert step.action == "refused"
    assert "found 1 partitions, 3 are declared" in step.why
    text = " ".join(step.migration)
    assert "--partitions t=1" in text
    for word in ("drain", "kafka.topic_prefix", "copy it", "re-point"):
        assert word in text


def test_a_refused_topic_still_gets_its_configuration():
    now = Found(1, 1, {"retention.ms": "7"})
    assert actions(plan([topic(ordered=True)], {"t": now}, brokers=1)) == ["alter_config", "refused"]


PAIR = [topic("windows", ordered=True), topic("state", ordered=True, same_partitions_as="windows")]


def test_tied_topics_follow_one_override():
    assert [t.partitions for t in with_partitions(PAIR, {"windows": 12})] == [12, 12]


@pytest.mark.parametrize(("there", "missing"), [("windows", "state"), ("state", "windows")])
def test_a_missing_twin_gets_what_its_twin_has(there: str, missing: str):
    steps = plan(PAIR, {there: found(9)}, brokers=1)
    assert {s.topic: (s.action, s.partitions) for s in steps} == {there: ("unchanged", 9), missing: ("create", 9)}


def test_uneven_twins_are_refused_even_with_more_than_declared():
    steps = plan(PAIR, {"windows": found(9), "state": found(6)}, brokers=1)
    assert actions(steps) == ["refused", "refused"]
    assert "has 6" in steps[0].why
    assert "has 9" in steps[1].why


def test_nothing_is_ever_planned_for_topics_that_are_not_ours():
    steps = plan(load_topics(), {"theirs": found(), "interp.unknown": found()}, brokers=1)
    assert {step.topic for step in steps} == {t.name for t in load_topics()}
