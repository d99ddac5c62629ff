from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from stream_interp.cli.configuration import Loaded, load, values
from stream_interp.cli.options import flags
from stream_interp.cli.setting_types import TYPES, shown
from stream_interp.errors import UsageError
from stream_interp.sae.precision import COMPUTE_DTYPES
from stream_interp.settings import SaeSettings, Settings

TOML = """\
unknown_sites = "reject"

[drift]
tolerance = 1.5
sla_requests = 100

[kafka]
bootstrap = "from-file:9092"

[kafka.librdkafka]
"security.protocol" = "SASL_SSL"
ssl.ca.location = "/ca.pem"
socket.keepalive.enable = true

[[sites]]
model_id = "m"
sae = "/saes/a"

[[notify.sinks]]
name = "desk"
type = "slack"
url = "https://u:pw@hooks.slack.com/services/T0/B0/s3cret"

[[notify.sinks]]
name = "mail"
type = "email"
url = "smtp://mail.example:587"
to = ["a@example.org"]

[notify]
attempts = 3

[[notify.routes]]
severity = "critical"
sinks = ["desk"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stream-interp.toml").write_text(TOML)
    return tmp_path


def _load(folder: Path, overrides: dict[str, object] | None = None, **environ: str) -> Loaded:
    variables = {f"STREAM_INTERP_{name}": value for name, value in environ.items()}
    return load(None, overrides or {}, {"PATH": "/bin", **variables}, folder)


def test_defaults_without_any_source(tmp_path: Path) -> None:
    loaded = _load(tmp_path)
    assert loaded.settings == Settings()
    assert loaded.origins == {}


def test_file_is_read_with_the_line_of_each_value(folder: Path) -> None:
    loaded = _load(folder)
    path = folder / "stream-interp.toml"
    assert loaded.settings.unknown_sites == "reject"
    assert loaded.settings.drift.tolerance == 1.5
    assert loaded.settings.sites[0].sae == "/saes/a"
    assert loaded.settings.kafka.librdkafka == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "/ca.pem",
        "socket.keepalive.enable": "true",
    }
    assert loaded.origins["drift.tolerance"] == f"{path}:4"
    assert loaded.origins["kafka.librdkafka.security.protocol"] == f"{path}:11"
    assert loaded.origins["sites"] == f"{path}:15"
    assert "drift.clock" not in loaded.origins


def test_lists_of_tables_are_read_and_shown_without_the_secrets_of_their_addresses(folder: Path) -> None:
    loaded = _load(folder)
    notify = loaded.settings.notify
    assert [sink.name for sink in notify.sinks] == ["desk", "mail"]
    assert notify.sinks[1].to == ["a@example.org"]
    assert (notify.attempts, notify.routes[0].severity, notify.routes[0].sinks) == (3, "critical", ["desk"])
    assert loaded.origins["notify.sinks"] == f"{folder / 'stream-interp.toml'}:19"
    rows = {name: shown(name, value) for name, value in values(loaded.settings).items()}
    assert [sink["url"] for sink in rows["notify.sinks"]] == [  # type: ignore[attr-defined]
        "https://(hidden)@hooks.slack.com/(hidden)",
        "smtp://mail.example:587",
    ]
    assert rows["notify.routes"][0]["sinks"] == ["desk"]  # type: ignore[index]


def test_the_environment_gives_lists_of_tables_as_json_and_broken_json_is_not_repeated(tmp_path: Path) -> None:
    sinks = '[{"name": "hook", "type": "webhook", "url": "https://h?token=s3cret"}]'
    loaded = _load(tmp_path, NOTIFY__SINKS=sinks)
    assert loaded.settings.notify.sinks[0].url == "https://h?token=s3cret"
    assert "s3cret" not in str(shown("notify.sinks", loaded.settings.notify.sinks))
    with pytest.raises(UsageError, match=r"notify\.sinks \(STREAM_INTERP_NOTIFY__SINKS\)") as caught:
        _load(tmp_path, NOTIFY__SINKS=sinks[:-1])
    assert "s3cret" not in str(caught.value)


def test_environment_wins_over_file_and_flags_over_both(folder: Path) -> None:
    loaded = _load(
        folder, {"drift.sla_requests": "300"}, DRIFT__TOLERANCE="1.7", drift__sla_requests="200", KAFKA__BOOTSTRAP="e:1"
    )
    assert loaded.settings.drift.tolerance == 1.7
    assert loaded.settings.drift.sla_requests == 300
    assert loaded.settings.kafka.bootstrap == "e:1"
    assert loaded.origins["drift.tolerance"] == "STREAM_INTERP_DRIFT__TOLERANCE"
    assert loaded.origins["drift.sla_requests"] == "flag"


def test_pass_through_entries_of_all_layers_add_up(folder: Path) -> None:
    loaded = _load(
        folder,
        {"kafka.librdkafka.linger.ms": "7"},
        KAFKA__LIBRDKAFKA__SECURITY_PROTOCOL="SSL",
        KAFKA__LIBRDKAFKA='{"sasl.username": "u"}',
    )
    entries = loaded.settings.kafka.librdkafka
    assert entries["security.protocol"] == "SSL"
    assert entries["ssl.ca.location"] == "/ca.pem"
    assert (entries["linger.ms"], entries["sasl.username"]) == ("7", "u")


def test_text_is_parsed_to_the_type_of_the_setting(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        {"window.requests": "1", "kafka.instance": "7"},
        SITES='[{"model_id": "m", "idle_ok": true}]',
        REDIS__URL="",
    )
    assert loaded.settings.window.requests == 1
    assert loaded.settings.kafka.instance == "7"
    assert loaded.settings.sites[0].idle_ok is True
    assert loaded.settings.redis.url == ""


def test_python_values_are_flags_too(tmp_path: Path) -> None:
    loaded = _load(tmp_path, flags(["drift.tolerance=9"], sites=[{"sae": "/x"}], drift__tolerance=2.0, bootstrap=None))
    assert loaded.settings.sites[0].sae == "/x"
    assert loaded.settings.drift.tolerance == 2.0
    assert "kafka.bootstrap" not in loaded.origins


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("drft.tolerance", "1", "did you mean drift.tolerance?"),
        ("tolerance", "1", "did you mean drift.tolerance?"),
        ("nothing.like.it", "1", "`stream-interp config show` lists them all"),
        ("kafka.security", "SSL", "settings of librdkafka stand below kafka.librdkafka"),
        ("drift", "1", "expected one of drift.false_alarms_per_week"),
        ("drift.tolerance", "0.9", "found '0.9', expected a number ≥ 1"),
        ("drift.tolerance", "nan", "expected a number ≥ 1"),
        ("drift.false_alarms_per_week", "inf", "expected a number > 0"),
        ("dlq.max_rate", "2", "expected a number ≥ 0 and ≤ 1"),
        ("baseline.requests", "49", "expected a whole number ≥ 50"),
        ("baseline.requests", "many", "expected a whole number ≥ 50"),
        ("unit.blocks", "0", "expected a whole number ≥ 1 and ≤ 64"),
        ("unit.tokens", "-1", "expected a whole number ≥ 0"),
        ("drift.clock", "wall", "expected one of closed_at, requests"),
        ("sites", '[{"sea": "/x"}]', "sites[0].sea (flag): unknown setting; did you mean sae?"),
        ("sites", "x", "expected a list of tables, such as [[sites]]"),
        ("sites", '[{"idle_ok": 3}]', "sites[0].idle_ok (flag): found 3, expected true or false"),
        ("notify.sinks", '["console"]', "expected a list of tables"),
        ("notify.sinks", '[{"name": "a"}]', "notify.sinks[0] (flag): has no type"),
        (
            "notify.sinks",
            '[{"name": "a", "typ": "slack"}]',
            "notify.sinks[0].typ (flag): unknown setting; did you mean type",
        ),
        (
            "notify.sinks",
            '[{"name": "a", "type": "b", "to": "x"}]',
            "notify.sinks[0].to (flag): found 'x', expected a list",
        ),
        (
            "notify.sinks",
            '[{"name": "a", "type": "b", "timeout_s": 0}]',
            "timeout_s (flag): found 0, expected a number > 0",
        ),
        (
            "notify.routes",
            '[{"severity": "bad"}]',
            "notify.routes[0].severity (flag): found 'bad', expected one of critical, info",
        ),
        ("notify.sink", "[]", "did you mean notify.sinks"),
        ("kafka.librdkafka", "3", "expected a JSON object"),
    ],
)
def test_a_wrong_flag_says_what_was_found_and_expected(tmp_path: Path, name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        _load(tmp_path, {name: value})
    assert said in str(caught.value)
    assert "(flag)" in str(caught.value)


def test_a_number_in_quotes_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stream-interp.toml").write_text('[drift]\ntolerance = "1.5"\n')
    with pytest.raises(UsageError, match=r"drift\.tolerance \(.*stream-interp\.toml:2\): found '1\.5'"):
        _load(tmp_path)


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stream-interp.toml").write_text("drift = 3\n")
    with pytest.raises(UsageError, match="this is a table of settings"):
        _load(tmp_path)


@pytest.mark.parametrize("content", ["[drift\n", "a = \x00"])
def test_broken_toml_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "stream-interp.toml").write_text(content)
    with pytest.raises(UsageError, match=r"stream-interp\.toml: not a TOML file: .*line 1"):
        _load(tmp_path)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--config .*absent\.toml: cannot be read: .*`stream-interp config init PATH`"
    ):
        load(tmp_path / "absent.toml", {}, {}, tmp_path)


def test_a_slip_in_a_variable_is_reported_in_its_spelling(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"STREAM_INTERP_DRIFT_TOLERANCE.*did you mean STREAM_INTERP_DRIFT__TOLERANCE"):
        _load(tmp_path, DRIFT_TOLERANCE="2")
    with pytest.raises(UsageError, match=r"STREAM_INTERP_KAFKA__BOOTSTRP.*STREAM_INTERP_KAFKA__BOOTSTRAP"):
        _load(tmp_path, KAFKA__BOOTSTRP="x")


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    assert _load(tmp_path, DEBUG="1", CACHE="/x").origins == {}


def test_file_variables_read_secrets(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:pw@h:1/0\n")
    (tmp_path / "password").write_text("s3cret\n")
    loaded = _load(
        tmp_path,
        REDIS__URL_FILE=str(tmp_path / "url"),
        KAFKA__PASSWORD_FILE=str(tmp_path / "password"),
        KAFKA__LIBRDKAFKA__SSL_KEY_PASSWORD_FILE=str(tmp_path / "password"),
        KAFKA__LIBRDKAFKA__SASL_OAUTHBEARER_ASSERTION_FILE="/not/read",
    )
    assert loaded.settings.redis.url == "redis://:pw@h:1/0"
    assert loaded.settings.kafka.password_file == str(tmp_path / "password")
    assert loaded.settings.kafka.librdkafka["ssl.key.password"] == "s3cret"
    assert loaded.settings.kafka.librdkafka["sasl.oauthbearer.assertion.file"] == "/not/read"
    assert loaded.origins["redis.url"] == f"STREAM_INTERP_REDIS__URL_FILE ({tmp_path / 'url'})"


@pytest.mark.parametrize("variable", ["REDIS__URL_FILE", "REDIS__PASSWORD_FILE", "KAFKA__PASSWORD_FILE"])
def test_a_missing_or_empty_secret_file_is_named(tmp_path: Path, variable: str) -> None:
    with pytest.raises(UsageError, match=rf"STREAM_INTERP_{variable}.*cannot read the secret file '/absent'"):
        _load(tmp_path, **{variable: "/absent"})
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        _load(tmp_path, **{variable: str(tmp_path / "empty")})


def test_every_setting_is_listed_and_shown_without_secrets(tmp_path: Path) -> None:
    loaded = _load(tmp_path, {"kafka.librdkafka.sasl.password": "s3cret", "redis.url": "redis://u:s3cret@h:1/0?x=1"})
    flat = values(loaded.settings)
    assert set(TYPES) - {"kafka.librdkafka"} <= set(flat)
    assert "s3cret" not in str({name: shown(name, value) for name, value in flat.items()})
    assert shown("redis.url", flat["redis.url"]) == "redis://(hidden)@h:1/0?x=1"
    assert shown("kafka.password_file", "/run/secrets/kafka") == "/run/secrets/kafka"


@pytest.mark.parametrize(
    "key", ["ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret", "ssl.keystore.password"]
)
def test_pass_through_secrets_are_hidden(key: str) -> None:
    assert shown(f"kafka.librdkafka.{key}", "x") == "(hidden)"


def test_dtypes_of_the_settings_are_the_ways_there_are(tmp_path: Path) -> None:
    """The settings are read without torch, so they name them once more."""
    assert set(get_args(get_type_hints(SaeSettings)["dtype"])) == {"auto", *COMPUTE_DTYPES}
    assert _load(tmp_path).settings.sae.dtype == "auto"
    assert _load(tmp_path, SAE__DTYPE="bfloat16").settings.sae.dtype == "bfloat16"
    with pytest.raises(UsageError, match="float8"):
        _load(tmp_path, SAE__DTYPE="float8")


def test_a_word_without_equals_is_refused() -> None:
    with pytest.raises(UsageError, match="--set drift: expected NAME=VALUE"):
        flags(["drift"])
    assert flags(["a.b=c=d"]) == {"a.b": "c=d"}
