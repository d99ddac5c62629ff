"""Model → snapshots: the capture SDK. Importing it loads neither torch nor a Kafka client."""

from stream_interp.capture.instrument import instrument
from stream_interp.capture.outbox import ProducerCounts
from stream_interp.capture.producer import SnapshotProducer

__all__ = ["ProducerCounts", "SnapshotProducer", "instrument"]
