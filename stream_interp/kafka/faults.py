"""What librdkafka tells only its error callback: refused logins, TLS mismatches, brokers that are gone.

Without a listener a consumer with a wrong password simply receives nothing, for ever.
"""

from __future__ import annotations

import logging
import math
import re
import time

from confluent_kafka import KafkaError

from stream_interp.errors import DependencyUnreachable

_log = logging.getLogger("stream_interp.kafka")

_TLS = re.compile(r"SSL|TLS|certificate|security\.protocol", re.IGNORECASE)
_NOISE = re.compile(r"^(\w+://)?[^ ]+: |\s*\(after \d+ms in state \w+.*$")
_LOGIN = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
}
_SILENT = (
    "it closes the connection before it answers, or does not speak Kafka",
    "Does this listener want TLS or a login? Then set security.protocol under [kafka.librdkafka].",
)


class Faults:
    """An `error_cb` that keeps the latest error of each kind and logs some.

    Args:
        log_every_s: at most one log line per kind in so many seconds; None: the caller tells the user itself.
    """

    def __init__(self, log_every_s: float | None = 60.0) -> None:
        self._log_every_s = log_every_s
        self._by_kind: dict[str, str] = {}
        self._logged_at_s: dict[str, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Takes one error from librdkafka."""
        text = _NOISE.sub("", error.str()).rstrip(".?")
        kind = _kind(error.code(), text)
        self._by_kind[kind] = text
        now_s = time.monotonic()
        if self._log_every_s is not None and now_s - self._logged_at_s.get(kind, -math.inf) >= self._log_every_s:
            self._logged_at_s[kind] = now_s
            _log.warning("Kafka: %s", text)

    @property
    def hopeless(self) -> bool:
        """Waiting will not help: the login was refused, or the two sides do not agree on TLS."""
        return "login" in self._by_kind or "tls" in self._by_kind

    def raise_if_hopeless(self, address: str) -> None:
        """For consume loops, once per poll. Raises DependencyUnreachable."""
        if self.hopeless:
            raise DependencyUnreachable("Kafka", address, *self.explain())

    def explain(self) -> tuple[str, str]:
        """What happened and what to do next, from the most telling error."""
        found = self._by_kind
        if "login" in found:
            return found["login"], "Check sasl.mechanism, sasl.username and kafka.password_file."
        if "tls" in found:
            return found["tls"], "Check security.protocol and ssl.ca.location under [kafka.librdkafka]."
        if "transport" in found:
            return found["transport"], "Start one with `stream-interp dev`, or name yours with --bootstrap."
        if "down" in found:
            return _SILENT
        return "no answer", "Start one with `stream-interp dev`, or name yours with --bootstrap."


def _kind(code: int, text: str) -> str:
    if code in _LOGIN:
        return "login"
    if code == KafkaError._SSL or _TLS.search(text):
        return "tls"
    return "down" if code == KafkaError._ALL_BROKERS_DOWN else "transport"
