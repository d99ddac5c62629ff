"""One example per command: the end of its `--help`. A test checks that each command has one and that it parses."""

from __future__ import annotations

EXAMPLES = {
    "demo": "stream-interp demo --files ./credit",
    "dev": "stream-interp dev",
    "run": "stream-interp run --sae ./credit/sae",
    "encode": "stream-interp encode --config /etc/stream-interp/stream-interp.toml --set kafka.instance=1",
    "detect": "stream-interp detect --bootstrap kafka-1:9092,kafka-2:9092",
    "produce": "stream-interp produce --from ./credit/null.safetensors --model-id credit-risk --hook hidden",
    "status": "stream-interp status credit-risk --fail-on critical",
    "alerts tail": "stream-interp alerts tail --model-id credit-risk --json",
    "topics plan": "stream-interp topics plan --bootstrap kafka-1:9092",
    "topics apply": "stream-interp topics apply --partitions interp.activations=12",
    "baseline build": (
        "stream-interp baseline build --sae ./credit/sae --from ./credit/baseline.safetensors "
        "--model-id credit-risk --hook hidden"
    ),
    "baseline show": "stream-interp baseline show credit-risk",
    "backtest": (
        "stream-interp backtest --sae ./credit/sae --baseline ./credit/baseline.safetensors "
        "--stream ./credit/null.safetensors --stream ./credit/shift.safetensors"
    ),
    "doctor": "stream-interp doctor --config ./stream-interp.toml",
    "config init": "stream-interp config init ./stream-interp.toml",
    "config show": "stream-interp config show --set drift.tolerance=1.3",
    "completion": "stream-interp completion bash",
    "version": "stream-interp version --json",
}
