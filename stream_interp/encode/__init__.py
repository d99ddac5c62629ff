"""Snapshots → windows. The core (`requests`, `features`, `encoder`, `window`, …) is pure; `process` wires it to Kafka."""
