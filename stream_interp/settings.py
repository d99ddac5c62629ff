"""Every setting with its type, unit and default. Pure: where values come from is `cli/configuration.py`.

Units are in the names. A dotted name such as `drift.tolerance` is the field `tolerance` of `Settings.drift`;
in the environment it is `STREAM_INTERP_DRIFT__TOLERANCE`, in the TOML file `[drift] tolerance = …`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Blocks = Annotated[int, Meta(ge=1, le=64)]  # each that a lane's requests reach is as large as a window's feature sums


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Kafka. `librdkafka` passes any client setting through, for example `security.protocol`."""

    bootstrap: str = "127.0.0.1:19092"
    topic_prefix: str = ""  # put before every topic name, for several installations on one cluster
    group_prefix: str = "interp"
    instance: str = "0"  # part of the transactional id: stable per process, different between processes
    password_file: str = ""  # its content becomes `sasl.password`
    librdkafka: dict[str, str] = field(default_factory=dict)


class RedisSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Redis. An empty `url` runs without the look-up view."""

    url: str = "redis://127.0.0.1:16379/0"
    password_file: str = ""


class WindowSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an input partition is cut (design §2). Ages are monotonic seconds; `max_age_s` 0 = off."""

    requests: Count = 32
    min_age_s: NonNegative = 0.5
    max_age_s: NonNegative = 5.0


class RequestSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one request; beyond them it is dropped and counted `incomplete`."""

    max_age_s: Positive = 60.0
    max_bytes: Count = 64 * 1024 * 1024


class DlqSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker stops when more than `max_rate` of ≥ 1,000 records within 60 s were dead letters; 0 = never."""

    max_rate: Annotated[float, Meta(ge=0, le=1)] = 0.9
    payload: Literal["redacted", "kept"] = "redacted"


class DriftSettings(Struct, frozen=True, kw_only=True):
    """The promise (design §4): at most `false_alarms_per_week` in expectation, all tests of a lane together.

    Travels in markers too, and so takes unknown fields: a newer setting must not stop an older DETECT.
    """

    false_alarms_per_week: Positive = 1.0
    clock: Literal["closed_at", "requests"] = "closed_at"
    requests_per_week: Positive = 100_000.0  # converts requests to weeks where clock = requests
    tolerance: Annotated[float, Meta(ge=1)] = 1.2  # rate ratios within it are not drift
    sla_requests: Count = 2_000  # coverage: what can be seen within so many requests
    seasonality: Literal["off", "hour_of_week"] = "off"  # rates that follow the hour, UTC, as they did in the baseline


class BaselineSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a lane learns before it is armed: one fifth for *fit*, the rest for *calibrate*."""

    requests: Annotated[int, Meta(ge=50)] = 10_000


class UnitSettings(Struct, frozen=True, kw_only=True):
    """What of a request is judged together; fixed when *fit* ends, in the lane's projector.

    Its first `tokens` counted tokens (0: the 10th percentile of length in *fit*), and of longer requests the
    next ones in blocks of as many, `blocks` with the first. Travels in markers too, and so takes unknown fields.
    """

    tokens: Annotated[int, Meta(ge=0)] = 0
    blocks: Blocks = 1


class StatusSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a lane's status is republished, and when silence is called `blind`."""

    interval_s: Positive = 5.0
    blind_after_s: Positive = 60.0


class CheckpointSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often DETECT writes the state of its lanes."""

    interval_s: Positive = 30.0


class SaeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where SAEs run, in what numbers, and how much memory one may take, the copy of another `dtype` included.

    Decoders of sets of layers stay in files and do not count. `dtype` is what ENCODE proposes for a lane that learns;
    `auto`: the fastest whose firings agree with float32 on at least 99.9 % of the lane's first 8,192 counted tokens.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "exact"] = "auto"
    max_memory_bytes: Count = 8 * 1024**3


class SiteSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[sites]]` entry: the sites whose names match these globs are encoded with `sae` (empty: T0 only).

    `sae` is the folder of a checkpoint; of one with an SAE for each layer `FOLDER#3` is that of layer 3.
    """

    tenant: str = "*"
    model_id: str = "*"
    model_revision: str = "*"
    hook_name: str = "*"
    sae: str = ""
    massive: str = "share"  # share | norm:LIMIT | off
    idle_ok: bool = False  # silence of this site is not `blind`
    feature_labels: str = ""  # JSON or CSV file, id → text, made for one SAE fingerprint
    examples: Literal["off", "hashed", "plain"] = "off"  # request ids on `interp.examples`, see ExampleSettings

    def matches(self, *, tenant: str, model_id: str, model_revision: str, hook_name: str) -> bool:
        """All four globs match, case-sensitively."""
        pairs = (
            (tenant, self.tenant),
            (model_id, self.model_id),
            (model_revision, self.model_revision),
            (hook_name, self.hook_name),
        )
        return all(fnmatchcase(name, glob) for name, glob in pairs)


class ExampleSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Live examples: per cut and lane, for so many features, the request in which each fired strongest."""

    features: Annotated[int, Meta(ge=1, le=4096)] = 64
    key_file: str = ""  # the HMAC key of `sites.examples = "hashed"`


class SinkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[notify.sinks]]` entry: somewhere that notifications go."""

    name: str
    type: str  # a name of `notify/sinks/__init__.py`
    url: str = ""  # where to; of `email` smtp://HOST:PORT or smtps://HOST:PORT
    # webhook: signing secrets, one a line; slack: its address; pagerduty: integration key; email: password; else bearer
    # token
    secret_file: str = ""
    username: str = ""  # of `email`
    sender: str = ""
    to: list[str] = field(default_factory=list)
    allow: list[str] = field(default_factory=list)  # private hosts or networks that may be called after all
    timeout_s: Positive = 10.0
    interval_s: Positive = 60.0  # of `deadman`


class RouteSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[notify.routes]]` entry: what matches all of it goes to these sinks. Without routes all goes to all."""

    tenant: str = "*"
    model_id: str = "*"
    hook_name: str = "*"
    severity: Literal["info", "warning", "critical"] = "info"  # at least
    cause: str = "*"
    sinks: list[str] = field(default_factory=list)


class NotifySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who hears of what, and how often."""

    sinks: list[SinkSettings] = field(default_factory=list)
    routes: list[RouteSettings] = field(default_factory=list)
    group_interval_s: NonNegative = 60.0  # further transitions of a told incident wait so long and go out as one
    repeat_interval_s: Positive = 4 * 3600.0  # an open incident that nobody acknowledged is told again
    max_age_s: Positive = 24 * 3600.0  # what opened and resolved longer ago than this goes into a digest
    flap_limit: Count = 4  # openings of the same story within `flap_window_s`, after which it is held back
    flap_window_s: Positive = 3600.0
    attempts: Count = 8  # of one delivery, with backoff and jitter; then it is a dead letter
    silent_after_s: Positive = 45.0  # without heartbeat or a fresh status: `detector silent`
    ui_url: str = ""  # where `stream-interp ui` is reached, for deep links
    runbook_url: str = "deploy/runbooks"  # the folder of the runbooks, for links


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a process writes to stderr."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of all processes."""

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    window: WindowSettings = WindowSettings()
    request: RequestSettings = RequestSettings()
    dlq: DlqSettings = DlqSettings()
    drift: DriftSettings = DriftSettings()
    baseline: BaselineSettings = BaselineSettings()
    unit: UnitSettings = UnitSettings()
    status: StatusSettings = StatusSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    sae: SaeSettings = SaeSettings()
    examples: ExampleSettings = ExampleSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()
    sites: list[SiteSettings] = field(default_factory=list)
    unknown_sites: Literal["t0", "reject"] = "t0"  # a site that no entry names

    def site_of(self, *, tenant: str, model_id: str, model_revision: str, hook_name: str) -> SiteSettings | None:
        """The first `[[sites]]` entry that matches."""
        names = {"tenant": tenant, "model_id": model_id, "model_revision": model_revision, "hook_name": hook_name}
        return next((site for site in self.sites if site.matches(**names)), None)
