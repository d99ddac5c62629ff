"""The root hash of a pack on `interp.control`: what an edited pack cannot agree with."""

from __future__ import annotations

from stream_interp.errors import IntegrityError
from stream_interp.evidence.seal import PackManifest
from stream_interp.kafka.control import publish_controls, read_controls
from stream_interp.records.control import EvidenceRoot, Versioned, make_order, read_evidence_root
from stream_interp.records.lane import Lane
from stream_interp.settings import KafkaSettings

_SHOWN = 12


def publish_root(
    kafka: KafkaSettings, lane: Lane, incident_id: str, root_sha256: str, made_at_ms: int, author: str, reason: str
) -> None:
    """Says on `interp.control` that a pack with this root hash was made.

    Args:
        made_at_ms: Unix epoch ms, the record's version.
        author: who made it, as claimed.

    Raises:
        DependencyUnreachable, TransactionAborted: Kafka did not take it.
    """
    root = EvidenceRoot(lane=lane, version=made_at_ms, incident_id=incident_id, root_sha256=root_sha256)
    publish_controls(kafka, [make_order(root, author, reason)])


def require_published(kafka: KafkaSettings, manifest: PackManifest, root_sha256: str) -> Versioned:
    """The record on `interp.control` that names this very pack.

    Raises:
        IntegrityError: there is none.
        DependencyUnreachable: Kafka does not answer.
    """
    own = [c for c in read_controls(kafka) if c.manifest.kind == "evidence" and c.manifest.lane == manifest.lane]
    roots = {root.root_sha256: c for c in own if (root := read_evidence_root(c)).incident_id == manifest.incident_id}
    if root_sha256 in roots:
        return roots[root_sha256]
    where = f"{kafka.topic_prefix}interp.control"
    if not roots:
        raise IntegrityError(
            f"{where} has no root hash of a pack of incident {manifest.incident_id}; is it another installation's, or "
            "did `evidence` end before it had published?"
        )
    known = ", ".join(f"{h[:_SHOWN]}… by {c.manifest.author or 'unknown'}" for h, c in roots.items())
    raise IntegrityError(
        f"the pack's root hash {root_sha256[:_SHOWN]}… is not the one that was published ({known}): manifest.json was "
        "changed after the pack was made"
    )
