"""Snapshots → windows. Pure, but for `process`, which wires the rest to Kafka."""
