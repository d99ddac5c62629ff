"""librdkafka's security settings as aiokafka, which Faust reads with, wants them."""

from __future__ import annotations

import ssl
from typing import Any

from stream_interp.errors import UsageError
from stream_interp.secret_files import read_secret
from stream_interp.settings import KafkaSettings

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_MAPPED = frozenset(
    {
        "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "ssl.ca.location",
        "ssl.certificate.location", "ssl.key.location", "ssl.key.password", "enable.ssl.certificate.verification",
        "ssl.endpoint.identification.algorithm",
    }
)  # fmt: skip
_SECURITY = ("ssl.", "sasl.", "security.", "enable.ssl.", "enable.sasl.")


def login(kafka: KafkaSettings) -> dict[str, Any]:
    """Arguments of `aiokafka.AIOKafkaConsumer`. Settings that are about speed alone do not concern it.

    Raises:
        UsageError: a security setting that aiokafka has no counterpart of, or a file that cannot be read.
    """
    given = kafka.librdkafka
    if unknown := sorted(name for name in given if name.startswith(_SECURITY) and name not in _MAPPED):
        raise UsageError(
            f"kafka.librdkafka.{unknown[0]}: notify cannot log in with it; expected among the security settings only "
            f"{', '.join(sorted(_MAPPED))}"
        )
    protocol = _one_of(given.get("security.protocol", "PLAINTEXT"), PROTOCOLS, "security.protocol")
    found: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        found["ssl_context"] = _tls(given)
    if protocol.startswith("SASL"):
        mechanism = given.get("sasl.mechanism", given.get("sasl.mechanisms", "GSSAPI"))  # as librdkafka's default
        found |= {
            "sasl_mechanism": _one_of(mechanism, MECHANISMS, "sasl.mechanism"),
            "sasl_plain_username": given.get("sasl.username", ""),
            "sasl_plain_password": _password(kafka),
        }
    return found


def _password(kafka: KafkaSettings) -> str:
    if "sasl.password" in kafka.librdkafka or not kafka.password_file:
        return kafka.librdkafka.get("sasl.password", "")
    return read_secret(kafka.password_file, "kafka.password_file")


def _tls(given: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.get("ssl.ca.location"))
        if certificate := given.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, given.get("ssl.key.location"), given.get("ssl.key.password"))
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"kafka.librdkafka: a file of ssl.* cannot be used: {error.strerror or error}; expected readable PEM files"
        ) from None
    if given.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    if given.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _one_of(value: str, allowed: tuple[str, ...], name: str) -> str:
    if value.upper() not in allowed:
        raise UsageError(f"kafka.librdkafka.{name}: found {value!r}, notify can use {', '.join(allowed)}")
    return value.upper()
