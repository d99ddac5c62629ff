"""The brake on bad input: a worker that can count almost nothing stops and says why."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from stream_interp.errors import StreamInterpError

WITHIN_S = 60.0
MIN_RECORDS = 1_000


class DeadLetterRate:
    """Records and dead letters of the last 60 s.

    Args:
        max_rate: more than this share of at least 1,000 records is too much; 0: never.
    """

    def __init__(self, max_rate: float) -> None:
        self._max_rate = max_rate
        self._polls: deque[tuple[float, int, Counter[str]]] = deque()

    def add(self, now_s: float, records: int, rejected: Mapping[str, int]) -> None:
        """Takes in what one poll brought: records, and dead letters by reason.

        Raises:
            StreamInterpError: too many of them.
        """
        if not self._max_rate or not records:
            return
        self._polls.append((now_s, records, Counter(rejected)))
        while self._polls[0][0] <= now_s - WITHIN_S:
            self._polls.popleft()
        total = sum(n for _, n, _ in self._polls)
        reasons = sum((c for _, _, c in self._polls), Counter[str]())
        share = reasons.total() / total
        if total >= MIN_RECORDS and share > self._max_rate:
            worst, n = reasons.most_common(1)[0]
            raise StreamInterpError(
                f"{share:.1%} of {total:,} records within {WITHIN_S:.0f} s were dead letters, mostly {worst} ({n:,}); "
                f"expected at most {self._max_rate:.0%} (dlq.max_rate). Mend the producer (interp.dlq says what was "
                "wrong with each), or set dlq.max_rate = 0 to go on regardless"
            )
