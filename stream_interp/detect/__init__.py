"""Windows → incidents. `step` and all it calls are pure; `process` wires them to Kafka."""
