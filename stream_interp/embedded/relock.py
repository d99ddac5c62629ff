"""Write `kafka_jars.lock.json` anew: `python -m stream_interp.embedded.relock`, after changing `ENDPOINTS`."""

from __future__ import annotations

import hashlib
import json

import jgo

from stream_interp.embedded.jars import LOCK_PATH

# slf4j-simple: without a logging backend a broker that cannot start says nothing.
ENDPOINTS = "org.apache.kafka:kafka_2.13:4.4.0+org.slf4j:slf4j-simple:1.7.36"


def main() -> None:
    """Resolve, download, hash."""
    artifacts = {f"{a.groupId}:{a.artifactId}:{a.version}": a.resolve() for a in jgo.resolve(ENDPOINTS)}
    lock = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(artifacts.items())}
    LOCK_PATH.write_text(json.dumps(lock, indent=2) + "\n")


if __name__ == "__main__":
    main()
