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
    "examples": "stream-interp examples 8c41d0 --feature 1042",
    "ui": "stream-interp ui --listen 127.0.0.1:8640",
    "top": "stream-interp top --once",
    "alerts list": "stream-interp alerts list --model-id credit-risk",
    "alerts show": "stream-interp alerts show 3f2a91",
    "alerts ack": "stream-interp alerts ack 3f2a91 --for 2h --reason 'looking into it'",
    "alerts silence": "stream-interp alerts silence 3f2a91 --for 1d --reason 'planned migration'",
    "alerts unsilence": "stream-interp alerts unsilence 3f2a91",
    "alerts resolve": "stream-interp alerts resolve 3f2a91 --reason 'bad input file removed'",
    "alerts tail": "stream-interp alerts tail --model-id credit-risk --json",
    "evidence pack": "stream-interp evidence 3f2a91 --out ./incident",
    "evidence verify": "stream-interp evidence verify ./incident",
    "replay": "stream-interp replay ./incident --json",
    "notify run": "stream-interp notify --config /etc/stream-interp/stream-interp.toml",
    "notify test": "stream-interp notify test pager --config /etc/stream-interp/stream-interp.toml",
    "topics plan": "stream-interp topics plan --bootstrap kafka-1:9092",
    "topics apply": "stream-interp topics apply --partitions interp.activations=12",
    "baseline build": (
        "stream-interp baseline build --sae ./credit/sae --from ./credit/baseline.safetensors "
        "--model-id credit-risk --hook hidden"
    ),
    "baseline list": "stream-interp baseline list credit-risk",
    "baseline show": "stream-interp baseline show credit-risk --features",
    "baseline diff": "stream-interp baseline diff 8c41d0",
    "baseline promote": "stream-interp baseline promote 8c41d0 1785225600000 --reason 'the newer one saw a test run'",
    "baseline rollback": "stream-interp baseline rollback 8c41d0 --reason 'learnt from a bad day'",
    "baseline relearn": "stream-interp baseline relearn 8c41d0 --reason 'new customer group, wanted'",
    "baseline approve": "stream-interp baseline approve 8c41d0 --reason 'the new market is what is normal now'",
    "backtest": (
        "stream-interp backtest --sae ./credit/sae --baseline ./credit/baseline.safetensors "
        "--stream ./credit/null.safetensors --stream ./credit/shift.safetensors"
    ),
    "calibrate": "stream-interp calibrate ./credit/baseline.safetensors --sae ./credit/sae",
    "evaluate": "stream-interp evaluate ./credit/baseline.safetensors ./credit/shift.safetensors --sae ./credit/sae",
    "bench": "stream-interp bench encode --json",
    "sae inspect": "stream-interp sae inspect ./credit/sae --check ./credit/null.safetensors",
    "sae convert": "stream-interp sae convert ./trainer_0 ./trainer_0_safe",
    "doctor": "stream-interp doctor --config ./stream-interp.toml",
    "config init": "stream-interp config init ./stream-interp.toml",
    "config show": "stream-interp config show --set drift.tolerance=1.3",
    "completion": "stream-interp completion bash",
    "version": "stream-interp version --json",
}
