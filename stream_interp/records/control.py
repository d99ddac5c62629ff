"""`interp.control`: projectors, baselines, operators' orders, hashes of evidence; compacted, chunked, manifest last.

Key `kind/lane_id/version/k`, the manifest under `kind/lane_id/version/manifest`. A reader uses a version only once
its manifest and all its parts are there and the hash is right.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from stream_interp.errors import IntegrityError
from stream_interp.records.arrays import Arrays, pack, unpack
from stream_interp.records.chunks import sha256, split
from stream_interp.records.envelope import JSON, SAFETENSORS, Envelope, binary, read_json
from stream_interp.records.lane import Lane
from stream_interp.records.segments import Segments
from stream_interp.records.window import FLOAT32, DtypeName
from stream_interp.settings import Blocks, DriftSettings, UnitSettings

PART_TYPE = "interp.control.part.v1"
MANIFEST_TYPE = "interp.control.manifest.v1"
PART_BYTES = 900_000
MAX_WAITING_BYTES = 256 * 1024 * 1024  # a version is a few MB, and comes in one transaction
MAX_SAID_BYTES = 64 * 1024  # of a manifest, and of an order: DETECT repeats them in records of its own
AHEAD_MS = 86_400_000  # of the log's time; a version beyond it would outdate all that people order for years
_PART_DIGITS = 9

OrderKind = Literal["ack", "silence", "unsilence", "resolve", "relearn", "approve"]
Kind = Literal["projector", "baseline", "evidence", "ack", "silence", "unsilence", "resolve", "relearn", "approve"]

ARRAY_KINDS = ("projector", "baseline")  # the bodies of the others are JSON


class Manifest(Struct, frozen=True, kw_only=True):
    """Written last: what the parts of one version must add up to."""

    schema_version: Literal[1] = 1
    kind: Kind
    lane: Lane
    version: int  # Unix epoch ms of its making; larger is newer
    parts: int
    bytes: int
    sha256: str
    author: str = ""
    reason: str = ""

    @property
    def key(self) -> str:
        """`kind/lane_id/version`, the common part of the record keys."""
        return f"{self.kind}/{self.lane.lane_id}/{self.version}"


class ProjectorHeader(Struct, frozen=True, kw_only=True):
    """What ENCODE needs to shape calibrated windows; it binds every worker to `compute_dtype`.

    Arrays: `mean` [r] float32, `whitening` [kept, r] float32, `cap` [d_sae] float32 (activation units), `surprise`
    [d_sae] float32 (nats; records of before that score have none).
    """

    schema_version: Literal[1] = 1
    lane: Lane
    version: int
    unit_tokens: int
    short_tokens: Annotated[int, Meta(ge=0)] = 0  # of a shorter request its first so many are judged; 0: all of them
    blocks: Blocks = 1  # of unit_tokens tokens that are judged of a long request, the unit included
    error_every: Annotated[int, Meta(ge=1, le=1_000_000)] = 1  # one of so many tokens is in the error terms
    d_in: int
    d_sae: int
    fit_requests: int
    fit_tokens: int
    shrinkage: float  # towards the mean eigenvalue; 0 where there were enough tokens
    kept_directions: int
    compute_dtype: DtypeName = FLOAT32  # what the SAE multiplies in, as ENCODE proposed first


class Sight(Struct, frozen=True, kw_only=True):
    """What a baseline can see and what it cannot, by the tests of rates that were armed with it first."""

    features_armed: int  # in one direction at least
    features_rare: int  # fired in too few requests: tested for firing more often, and for nothing else
    features_not_covered: int  # of which no change of up to 64-fold would be seen within sla_requests
    sla_requests: int
    detectable_ratio: dict[str, float | None]  # by quantile over features, within sla_requests; None: more than 64


class BaselineHeader(Struct, frozen=True, kw_only=True):
    """What DETECT tests against, frozen.

    Arrays: `requests_fired` [d_sae] int64; `calibration_scores` [n, scores] float32 in log order,
    the first of SCORES: as many as were known to the windows that it was counted from. Records of before have none of
    the others: `mag_sum` [d_sae] float64; `length_histogram` and `start_histogram` [BINS] int64; `hour_requests` [168]
    int64 and `hour_fired` [168] float64, by hour of the week; and `requests_fired`, `mag_sum` and `calibration_scores`
    of each stratum in `strata`, as STRATUM.NAME.
    """

    schema_version: Literal[1] = 1
    lane: Lane
    version: int
    projector_version: int
    requests: int  # calibration requests, the n of every interval
    fit_requests: int
    tokens: int
    too_short: int
    provisional: bool  # fewer requests than the default asks for
    explained_variance: float | None
    l0: float | None
    norm: float
    massive_share: float
    compute_dtype: DtypeName = FLOAT32  # its projector's
    unit_tokens: int = 0  # its projector's; 0: of before it was kept here
    stationary_p: float | None = None  # for one distribution in its requests' order; None: of before it was kept
    first_closed_at_ms: int = 0  # the calibration's windows: their times, Unix epoch, and offsets; of a file made up
    last_closed_at_ms: int = 0
    first_offset: int = -1
    last_offset: int = -1
    code_version: str = ""  # of the DETECT that counted it
    sight: Sight | None = None
    origin: int = 0  # the version that was promoted; 0: this one was learnt
    design_effect: float | None = None  # of requests, 1 where they are independent; None: not known (`drift`)
    design_effect_of_tokens: float | None = None
    design_effect_of_groups: float | None = None  # of requests of one group key; None: not known, or they have none
    dependent_groups: bool = False  # requests of one group key are dependent, beyond chance
    dependent: bool = False  # they are, or in their order: intervals were widened; alarms may be more than the budget
    strata: dict[str, int] = field(default_factory=dict)  # requests of each stratum that has enough, beside the unit
    segments: Segments = field(default_factory=dict)  # requests that name one, as in windows; of `*` the others

    @property
    def largest_design_effect(self) -> float | None:
        """Of requests, in their order or by their groups where that is beyond chance; None: not known."""
        of_groups = self.design_effect_of_groups if self.dependent_groups else None
        return max((effect for effect in (self.design_effect, of_groups) if effect is not None), default=None)

    @property
    def widened_by(self) -> float:
        """So many of its requests tell of a rate what one independent request does."""
        return max(self.largest_design_effect or 1.0, 1.0) if self.dependent else 1.0


class Order(Struct, frozen=True, kw_only=True):
    """What an operator asks of a lane. Who and why stand in the manifest, as claimed.

    `resolve`, `relearn` and `approve` change `step` and so become markers; `ack`, `silence` and `unsilence` never do.
    """

    schema_version: Literal[1] = 1
    kind: OrderKind
    lane: Lane
    version: int
    incident_id: str = ""  # of ack and resolve
    baseline_version: int = 0  # of approve: the baseline that becomes the lane's anchor
    until_ms: int = 0  # of ack (0 = until it resolves) and silence


class EvidenceRoot(Struct, frozen=True, kw_only=True):
    """The root hash of an evidence pack, so that an edited pack is found out."""

    schema_version: Literal[1] = 1
    lane: Lane
    version: int
    incident_id: str
    root_sha256: str  # of the pack's manifest.json


class Marker(Struct, frozen=True, kw_only=True):
    """A control record, or a change of `blind`, as it takes effect at one position of a windows partition."""

    schema_version: Literal[1] = 1
    kind: Literal["baseline", "blind", "resolve", "relearn", "approve"]
    lane: Lane
    version: int = 0
    sha256: str = ""
    at_ms: int = 0
    after_position: int = -1  # `blind` holds only if no later window of the lane was ticked
    drift: DriftSettings | None = None  # the settings from here on, so that a replay needs no file
    projector_version: int = 0  # of the baseline that is named
    baseline_requests: int = 0  # with `relearn`: how many it learns from
    unit: UnitSettings | None = None  # with `relearn`
    incident_id: str = ""  # of `resolve`
    baseline_version: int = 0  # of `approve`
    author: str = ""
    reason: str = ""


MARKER_TYPE = "interp.marker.v1"
Of = TypeVar("Of", Order, ProjectorHeader, BaselineHeader)


class Versioned(Struct, frozen=True):
    """A whole control record: its manifest and the bytes behind it."""

    manifest: Manifest
    body: bytes


def make_control(
    kind: Kind, header: ProjectorHeader | BaselineHeader, arrays: Arrays, author: str, reason: str
) -> Versioned:
    """A new version of a projector or baseline."""
    body = pack(header, arrays)
    manifest = Manifest(
        kind=kind, lane=header.lane, version=header.version, parts=len(split(body, PART_BYTES)),
        bytes=len(body), sha256=sha256(body), author=author, reason=reason,
    )  # fmt: skip
    return Versioned(manifest, body)


def encode_control(record: Versioned) -> list[Envelope]:
    """Parts in order, manifest last."""
    m = record.manifest
    parts = [
        binary(f"{m.key}/{k}", PART_TYPE, SAFETENSORS if m.kind in ARRAY_KINDS else JSON, part, source="/control")
        for k, part in enumerate(split(record.body, PART_BYTES))
    ]
    return [*parts, binary(f"{m.key}/manifest", MANIFEST_TYPE, JSON, msgspec.json.encode(m), source="/control")]


def make_order(order: Order | EvidenceRoot, author: str, reason: str) -> Versioned:
    """An operator's record: a body of JSON in one part."""
    kind: Kind = order.kind if isinstance(order, Order) else "evidence"
    body = msgspec.json.encode(order)
    manifest = Manifest(
        kind=kind, lane=order.lane, version=order.version, parts=1, bytes=len(body), sha256=sha256(body),
        author=author, reason=reason,
    )  # fmt: skip
    return Versioned(manifest, body)


def read_order(record: Versioned) -> Order:
    """What an operator asks. Raises IntegrityError."""
    order = read_json(_short("an order", record.body), Order)
    if order.kind != record.manifest.kind:
        raise IntegrityError(f"{record.manifest.key}: its body is not what its manifest says, but {order.kind}")
    return _as_said(record, order)


def _short(what: str, value: bytes) -> bytes:
    if len(value) > MAX_SAID_BYTES:
        raise IntegrityError(f"{what} of {len(value):,} bytes; expected at most {MAX_SAID_BYTES:,}")
    return value


def read_evidence_root(record: Versioned) -> EvidenceRoot:
    """The root hash of a pack. Raises IntegrityError."""
    return read_json(record.body, EvidenceRoot)


def read_projector(record: Versioned) -> tuple[ProjectorHeader, Arrays]:
    """Header and arrays of a projector. Raises IntegrityError."""
    header, arrays = unpack(record.body, ProjectorHeader)
    return _as_said(record, header), arrays


def read_baseline(record: Versioned) -> tuple[BaselineHeader, Arrays]:
    """Header and arrays of a baseline. Raises IntegrityError."""
    header, arrays = unpack(record.body, BaselineHeader)
    return _as_said(record, header), arrays


def _as_said(record: Versioned, body: Of) -> Of:
    """ENCODE may go by the one and DETECT by the other: they must not differ."""
    manifest = record.manifest
    if (body.lane, body.version) != (manifest.lane, manifest.version):
        raise IntegrityError(
            f"{manifest.key}: its body is not what its manifest says: lane {body.lane.lane_id}, version {body.version}"
        )
    return body


def is_ahead(version: int, logged_ms: int | None) -> bool:
    """A version of a time that had not come when the log took it. A negative `logged_ms`: the log does not say."""
    return logged_ms is not None and logged_ms >= 0 and version > logged_ms + AHEAD_MS


class ControlReader:
    """Assembles control records from the topic, in any order, and hands out versions that became whole.

    A newer manifest of the same key replaces an older one (compaction keeps the last). Parts of versions whose
    manifest does not come are kept up to MAX_WAITING_BYTES; those that wait for longest go first.
    """

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, bytes]] = {}
        self._waiting_bytes = 0
        self._manifests: dict[str, Manifest] = {}

    def add(self, key: str, value: bytes | None, logged_ms: int | None = None) -> Versioned | None:
        """Takes one record; the whole version, if this record completed it.

        Args:
            logged_ms: when the log took it, Unix epoch ms; None where that is not known.

        Raises:
            IntegrityError: a manifest that cannot be read, or of a version from the future.
        """
        base, _, last = key.rpartition("/")
        if value is None:
            return None
        if last == "manifest":
            manifest = read_json(_short("a manifest", value), Manifest)
            if is_ahead(manifest.version, logged_ms):
                raise IntegrityError(
                    f"{manifest.kind} of lane {manifest.lane.lane_id}: its version {manifest.version} is a time more "
                    "than a day after the log took it; set the clock of the machine that wrote it, and order it again"
                )
            self._manifests[base] = manifest
        elif last.isdecimal() and len(last) <= _PART_DIGITS:
            self._keep(base, int(last), value)
        return self._whole(base)

    def _keep(self, base: str, k: int, part: bytes) -> None:
        parts = self._parts.setdefault(base, {})
        self._waiting_bytes += len(part) - len(parts.get(k, b""))
        parts[k] = part
        while self._waiting_bytes > MAX_WAITING_BYTES and len(self._parts) > 1:
            self._drop(next(iter(self._parts)))

    def _drop(self, base: str) -> None:
        self._waiting_bytes -= sum(map(len, self._parts.pop(base, {}).values()))

    def _whole(self, base: str) -> Versioned | None:
        manifest, parts = self._manifests.get(base), self._parts.get(base, {})
        if manifest is None or any(k not in parts for k in range(manifest.parts)):
            return None
        body = b"".join(parts[k] for k in range(manifest.parts))
        if sha256(body) != manifest.sha256:
            return None  # parts of an older write under the same key: the right ones follow
        self._drop(base)
        del self._manifests[base]
        return Versioned(manifest, body)
