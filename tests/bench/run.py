"""Every performance claim as a ratio of two things in one run: `python -m tests.bench.run [NAME…]`.

`make bench` runs all; `stream-interp bench [NAME…] --json` does the same from a source checkout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator

from tests.bench import delay, encode, load, parts, pipeline, versus
from tests.bench.measure import Row, as_json, environment

BENCHES: dict[str, Callable[[], Iterator[Row]]] = {
    "encode": encode.rows,
    "pipeline": pipeline.rows,
    "kafka": pipeline.kafka_rows,
    "versus_saelens_river": versus.rows,
    "load": load.rows,
    "parts": parts.rows,
    "delay": delay.rows,
}


def main() -> None:
    """A line for each row as soon as it is measured; with --json one object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; none: all")
    parser.add_argument("--json", action="store_true", help="one JSON object a row, with the environment")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHES:
            parser.error(f"no bench {name!r}; there are {', '.join(BENCHES)}")
    of = environment()
    if not arguments.json:
        sys.stdout.write(f"{json.dumps(of)}\n")
    for name in arguments.names or BENCHES:
        for row in BENCHES[name]():
            sys.stdout.write((json.dumps(as_json(row, of)) if arguments.json else str(row)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
