"""The error tree. Every error says what was found, what was expected and what to do next.

StreamInterpError                exit 1
├── UsageError                   exit 2   a flag, a file or a setting is wrong
├── BlindError                   exit 4   the answer is "unknown", which is not "ok"
├── DependencyUnreachable        exit 5   Kafka, Redis, a jar repository
├── IntegrityError               exit 6   state, baseline or checkpoint do not match what was signed for
├── InvalidSnapshot              fate: dead letter, the worker goes on
├── ComputeDtypeUnavailable      fate: the lane's requests are not encoded, which is counted and shown
├── SinkError (notify/sinks)     fate: retried, or a dead letter; NOTIFY goes on
└── SAELoadError                 exit 1   a checkpoint that must not be trusted
"""

from __future__ import annotations


class StreamInterpError(Exception):
    """Base of all errors that users see as one line, never as a traceback."""

    exit_code = 1


class UsageError(StreamInterpError):
    """A flag, a file or a setting is wrong."""

    exit_code = 2


class BlindError(StreamInterpError):
    """There is no trustworthy answer: missing, stale, or below the coverage floor."""

    exit_code = 4


class DependencyUnreachable(StreamInterpError):
    """A server we need does not answer, or refuses us.

    Args:
        service: what it is, such as ``Kafka`` or ``Redis``.
        address: where it was looked for.
        found: what happened there.
        next_step: what the user can do.
    """

    exit_code = 5

    def __init__(self, service: str, address: str, found: str, next_step: str) -> None:
        super().__init__(f"{service} at {address}: {found}. {next_step}")
        self.service, self.address = service, address


class IntegrityError(StreamInterpError):
    """Something that must match does not: a hash, a version, a checkpoint's age."""

    exit_code = 6


class InvalidSnapshot(StreamInterpError):
    """A snapshot record that cannot be counted. Fate: the dead-letter topic.

    Args:
        reason: one of ``stream_interp.records.dlq.REASONS``.
        found: what the record held.
        expected: what it should have held.
    """

    def __init__(self, reason: str, found: str, expected: str) -> None:
        super().__init__(f"{reason}: found {found}, expected {expected}")
        self.reason, self.found, self.expected = reason, found, expected


class SAELoadError(StreamInterpError):
    """A checkpoint that is not loaded, because loading it wrongly would be a silent failure.

    Args:
        reason: a short code such as ``unknown_architecture``.
        path: the file or folder.
        expected: what a good checkpoint has there.
        found: what this one has.
    """

    def __init__(self, reason: str, path: str, expected: str, found: str) -> None:
        found = _shown(found)
        super().__init__(f"{path}: {reason}: expected {expected}, found {found}")
        self.reason, self.path, self.expected, self.found = reason, path, expected, found


class ComputeDtypeUnavailable(StreamInterpError):
    """This process cannot multiply in the way that a projector binds every worker to."""

    def __init__(self, compute_dtype: str, found: str) -> None:
        super().__init__(
            f"compute_dtype {compute_dtype[:40]!r}: {found}; run this lane where it works, or let it learn again"
        )
        self.compute_dtype = compute_dtype


def _shown(text: str) -> str:
    """A stranger's file may name a tensor in megabytes, or in codes that a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:4_000])
