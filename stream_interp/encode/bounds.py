"""What ENCODE may hold in memory, and how much one poll may bring."""

from __future__ import annotations

from stream_interp.encode.assembly import bound_bytes
from stream_interp.encode.batching import BATCH_BYTES, FIRINGS_BYTES
from stream_interp.encode.examples import TURNS_BYTES
from stream_interp.encode.open_cut import MAX_LETTER_BYTES, MAX_WINDOW_BYTES
from stream_interp.encode.proposals import SAMPLE_BYTES
from stream_interp.encode.requests import PROJECTIONS_BYTES
from stream_interp.settings import RequestSettings

POLL_BYTES = 64 * 1024 * 1024
TURN_S = 1.0  # one turn of the loop takes about so long at most: far below max.poll.interval.ms
MIN_POLL_RECORDS, MAX_POLL_RECORDS = 8, 2_000
SAE_TIMES = 4.5  # as loaded; in ways of ½, ½ and at most 1¼ of that; and in one once more while a lane is measured
QUEUE_BYTES = 256 * 1024 * 1024  # queued.max.messages.kbytes


def memory_bound_bytes(request: RequestSettings, partitions: int, sae_bytes: int, has_examples: bool = False) -> int:
    """What the process may hold with so many input partitions, beside Python and torch themselves.

    `sae_bytes`: of the SAEs in float32.
    """
    per_partition = bound_bytes(request) + MAX_WINDOW_BYTES + MAX_LETTER_BYTES
    batches = 2 * (9 * BATCH_BYTES + FIRINGS_BYTES)  # what waits; float32 and float64 copies of tokens and of sums
    turns = TURNS_BYTES if has_examples else 0  # the examples of open windows are part of MAX_WINDOW_BYTES
    saes = int(SAE_TIMES * sae_bytes) + 2 * SAMPLE_BYTES  # a sample is put together to be measured
    return QUEUE_BYTES + POLL_BYTES + PROJECTIONS_BYTES + batches + saes + turns + partitions * per_partition


def next_poll_records(asked: int, records: int, n_bytes: int, turn_s: float) -> int:
    """How many records to ask for next, so that a turn stays near `TURN_S` and `POLL_BYTES`.

    Args:
        asked: what was asked for in the turn that ended.
        records: what came.
        n_bytes: size of their values.
        turn_s: how long the turn took after the poll.
    """
    if not records:
        return asked
    factor = min(2.0, TURN_S / max(turn_s, 1e-3), POLL_BYTES / max(n_bytes, 1))
    limit = int(max(records, 1) * factor) if factor < 1 or records >= asked else asked
    return min(MAX_POLL_RECORDS, max(MIN_POLL_RECORDS, limit))
