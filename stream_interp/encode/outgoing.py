"""The records of a closed cut."""

from __future__ import annotations

from stream_interp.encode.open_cut import ClosedCut
from stream_interp.records.cut import encode_cut
from stream_interp.records.dlq import encode_dead_letter
from stream_interp.records.envelope import Envelope
from stream_interp.records.example import encode_example
from stream_interp.records.window import encode_window

WINDOWS, CUTS, DEAD_LETTERS, EXAMPLES = "interp.windows", "interp.cuts", "interp.dlq", "interp.examples"


def records_of(closed: ClosedCut, closed_at_ms: int) -> tuple[list[tuple[str, Envelope]], Envelope]:
    """(topic, record) of its windows, dead letters and examples, in the order to send them; and its cut record."""
    windows, cut = closed.finish(closed_at_ms)
    records = [(WINDOWS, envelope) for window in windows for envelope in encode_window(window)]
    records += [(DEAD_LETTERS, encode_dead_letter(letter, key)) for letter, key in closed.cut.letters]
    for lane in closed.cut.lanes.values():
        if lane.examples is not None:
            records += [(EXAMPLES, encode_example(example)) for example in lane.examples.close(closed_at_ms)]
    return records, encode_cut(cut)
