"""Feature labels: an operator's file says in words what a feature stands for, for one SAE. Pure.

A file is JSON or CSV, told apart by its suffix, and names the SAE fingerprint it was made for: the whole sha256, or
12 or more of its first hex digits, as ENCODE prints them at start:

    {"sae_fingerprint": "3b7e1c04d2aa", "labels": {"12": "loan amount above 300,000", "40": "applicant under 25"}}

    # sae_fingerprint: 3b7e1c04d2aa
    id,label
    12,"loan amount above 300,000"
    40,applicant under 25

Other keys and columns are ignored. On a lane with another fingerprint no label is shown, and its status says why.
Labels never enter `step`: they are attached to what DETECT writes, so that a replay gives the same events whatever
the file holds. The file is read once, at start; a changed file needs a restart.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from msgspec import structs

from stream_interp.errors import UsageError
from stream_interp.records.alert import Alert, FeatureDrift
from stream_interp.records.lane import Lane
from stream_interp.records.status import Status
from stream_interp.records.text import inert
from stream_interp.settings import SiteSettings

MAX_LABEL_CHARS = 200  # twenty features of an alert, with their labels, stay far below a record's limit
MIN_FINGERPRINT_DIGITS, FINGERPRINT_DIGITS = 12, 64
_COMMENT = "# sae_fingerprint:"
_ID_DIGITS = 9
_TOLD_IDS = 5


@dataclass(frozen=True)
class FeatureLabels:
    """The labels of one file.

    Attributes:
        file: its name without folders, for messages that leave this machine.
        fingerprint: the first 12 to 64 hex digits of the SAE's.
        texts: feature → label, one printable line of at most 200 characters; no blank ones.
        cut, cleaned: how many labels were longer, and held characters that do not print.
    """

    file: str
    fingerprint: str
    texts: Mapping[int, str]
    cut: int = 0
    cleaned: int = 0

    def why_not(self, lane: Lane, d_sae: int | None = None) -> str:
        """Why features of this lane have no label; empty where all ids are usable. `d_sae` None: not known yet."""
        if not self.is_for(lane):
            return f"{self.file} is for SAE {self.fingerprint[:12]}, this lane has {lane.sae_fingerprint[:12]}"
        outside = [] if d_sae is None else sorted(k for k in self.texts if k >= d_sae)
        if outside:
            listed = ", ".join(map(str, outside[:_TOLD_IDS]))
            return f"{self.file}: {len(outside)} ids are no feature of this SAE ({listed}); it has {d_sae}"
        return ""

    def is_for(self, lane: Lane) -> bool:
        """The lane's SAE is the one that the file was made for."""
        return lane.sae_fingerprint.startswith(self.fingerprint)

    def on(self, drifts: Sequence[FeatureDrift]) -> list[FeatureDrift]:
        """The drifts with their labels; the lane's fingerprint was compared before."""
        return [structs.replace(drift, label=self.texts.get(drift.feature, "")) for drift in drifts]


class SiteLabels:
    """The label files of all sites. The first entry that matches a lane says which file is its own.

    Args:
        sites: `[[sites]]`, in order.
        files: `feature_labels` → what it holds.
    """

    def __init__(self, sites: Sequence[SiteSettings], files: Mapping[str, FeatureLabels]) -> None:
        self._sites, self._files = tuple(sites), dict(files)

    def of(self, lane: Lane) -> FeatureLabels | None:
        """The file for this lane, whether or not it fits."""
        names = {name: getattr(lane, name) for name in ("tenant", "model_id", "model_revision", "hook_name")}
        site = next((site for site in self._sites if site.matches(**names)), None)
        return self._files.get(site.feature_labels) if site else None

    def on_alert(self, alert: Alert) -> Alert:
        """The alert with the labels of its features."""
        labels = self.of(alert.lane)
        if labels is None or not alert.features or not labels.is_for(alert.lane):
            return alert
        return structs.replace(alert, features=labels.on(alert.features), by_effect=labels.on(alert.by_effect))

    def on_status(self, status: Status, d_sae: int | None) -> Status:
        """The status with the labels of its incident's features, or with why they have none."""
        labels = self.of(status.lane)
        if labels is None:
            return status
        incident = status.incident
        if incident is not None and labels.is_for(status.lane):
            features, by_effect = labels.on(incident.features), labels.on(incident.by_effect)
            incident = structs.replace(incident, features=features, by_effect=by_effect)
        return structs.replace(status, incident=incident, labels=labels.why_not(status.lane, d_sae))


def parse_labels(content: bytes, name: str) -> FeatureLabels:
    """The labels in a file.

    Args:
        content: all of it.
        name: its path; the suffix says what it is.

    Raises:
        UsageError: it is not as this module says: no fingerprint, a repeated id, an id that is no whole number, a
            label that is no text.
    """
    kinds = {".json": _read_json, ".csv": _read_csv}
    kind = PurePath(name).suffix.lower()
    if kind not in kinds:
        raise UsageError(f"{name}: feature labels of kind {kind or 'unknown'}; expected a .json or .csv file")
    try:
        fingerprint, pairs = kinds[kind](content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: byte {error.start} is not UTF-8; expected text in UTF-8") from None
    return _labels(PurePath(name).name, _fingerprint(fingerprint, name), pairs, name)


Pairs = Iterable[tuple[object, object]]


def _read_json(text: str, name: str) -> tuple[object, Pairs]:
    try:
        found = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not JSON ({error}); expected {_JSON_FORM}") from None
    fields = dict(found.pairs) if isinstance(found, _Object) else {}
    labels = fields.get("labels")
    if not isinstance(labels, _Object):
        raise UsageError(f"{name}: no object `labels`; expected {_JSON_FORM}")
    return fields.get("sae_fingerprint"), labels.pairs


_JSON_FORM = '{"sae_fingerprint": "…", "labels": {"12": "text", …}}'


@dataclass(frozen=True)
class _Object:
    """A JSON object as it is written: repeated keys are still there."""

    pairs: list[tuple[str, Any]]


def _read_csv(text: str, name: str) -> tuple[object, Pairs]:
    first, _, rest = text.partition("\n")
    if not first.startswith(_COMMENT):
        raise UsageError(f"{name}: first line {first[:80]!r}; expected `{_COMMENT} HEX`, the SAE the labels are for")
    rows = csv.DictReader(io.StringIO(rest, newline=""), strict=True)
    try:
        if missing := {"id", "label"} - set(rows.fieldnames or ()):
            raise UsageError(f"{name}: second line has no column {', '.join(sorted(missing))}; expected `id,label`")
        return first.removeprefix(_COMMENT), [(row["id"], row["label"]) for row in rows]
    except csv.Error as error:
        raise UsageError(
            f"{name}: near line {rows.line_num + 1}: {error}; expected CSV with the columns id,label"
        ) from None


def _fingerprint(found: object, name: str) -> str:
    digits = found.strip().lower() if isinstance(found, str) else ""
    if not (MIN_FINGERPRINT_DIGITS <= len(digits) <= FINGERPRINT_DIGITS and set(digits) <= set("0123456789abcdef")):
        raise UsageError(
            f"{name}: sae_fingerprint is {str(found)[:80]!r}; expected {MIN_FINGERPRINT_DIGITS} to "
            f"{FINGERPRINT_DIGITS} hex digits, as `stream-interp encode` prints them for each site at start"
        )
    return digits


def _labels(file: str, fingerprint: str, pairs: Pairs, name: str) -> FeatureLabels:
    texts: dict[int, str] = {}
    seen: set[int] = set()
    cut = cleaned = 0
    for raw_id, raw in pairs:
        feature = _feature(raw_id, name)
        if feature in seen:
            raise UsageError(f"{name}: id {feature} comes twice; expected every feature once")
        seen.add(feature)
        if not isinstance(raw, str):
            raise UsageError(f"{name}: the label of id {feature} is {type(raw).__name__}; expected text")
        text = inert(raw.strip())
        cleaned += text != raw.strip()
        cut += len(text) > MAX_LABEL_CHARS
        if text := _short(text):
            texts[feature] = text
    return FeatureLabels(file, fingerprint, texts, cut, cleaned)


def _short(text: str) -> str:
    return text if len(text) <= MAX_LABEL_CHARS else text[: MAX_LABEL_CHARS - 1] + "…"


def _feature(raw: object, name: str) -> int:
    text = raw.strip() if isinstance(raw, str) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS):
        raise UsageError(f"{name}: id {str(raw)[:40]!r}; expected the number of a feature, from 0")
    return int(text)
