"""Kafka logins of Faust's client."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from stream_interp.errors import UsageError
from stream_interp.notify.faust_app import reader_settings
from stream_interp.notify.login import login
from stream_interp.settings import KafkaSettings


def kafka(**settings: str) -> KafkaSettings:
    return KafkaSettings(librdkafka={name.replace("_", "."): value for name, value in settings.items()})


def test_nothing_given_is_plaintext() -> None:
    assert login(KafkaSettings()) == {"security_protocol": "PLAINTEXT"}


def test_a_password_from_a_file_over_tls(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    settings = KafkaSettings(
        password_file=str(tmp_path / "password"),
        librdkafka={
            "security.protocol": "sasl_ssl", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "ann",
            "linger.ms": "5",
        },
    )  # fmt: skip
    found = login(settings)
    context = found.pop("ssl_context")
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert found == {
        "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "ann",
        "sasl_plain_password": "hunter2",
    }  # fmt: skip


def test_verification_can_be_turned_off_as_in_librdkafka() -> None:
    name_only = login(kafka(security_protocol="SSL", ssl_endpoint_identification_algorithm="none"))["ssl_context"]
    assert (name_only.check_hostname, name_only.verify_mode) == (False, ssl.CERT_REQUIRED)
    nothing = login(kafka(security_protocol="SSL", enable_ssl_certificate_verification="false"))["ssl_context"]
    assert nothing.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "GSSAPI"}, "sasl.mechanism"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}, "sasl.mechanism"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "sasl.mechanism"),
        ({"security_protocol": "TLS"}, "security.protocol"),
        ({"ssl_keystore_location": "k.p12"}, "ssl.keystore.location"),
        ({"sasl_oauthbearer_config": "x"}, "sasl.oauthbearer.config"),
        ({"security_protocol": "SSL", "ssl_ca_location": "/nowhere/ca.pem"}, "ssl"),
    ],
)
def test_what_cannot_be_mapped_is_said_at_once(settings: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        reader_settings(kafka(**settings), "g")


def test_a_password_in_the_settings_wins_and_no_error_shows_it() -> None:
    given = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.password": "hunter2"}
    assert login(KafkaSettings(librdkafka=given))["sasl_plain_password"] == "hunter2"
    with pytest.raises(UsageError) as caught:
        login(KafkaSettings(librdkafka=given | {"sasl.mechanism": "NTLM"}))
    assert "hunter2" not in str(caught.value)


def test_it_reads_committed_records() -> None:
    assert reader_settings(KafkaSettings(), "g")["isolation_level"] == "read_committed"
