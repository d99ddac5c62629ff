"""Which lane a snapshot belongs to, which SAE encodes it, and the shape of the lane's statistics."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from stream_interp.encode.encoder import Encoder
from stream_interp.encode.examples import ExampleRule
from stream_interp.encode.requests import LaneShape, shape_of
from stream_interp.encode.ways import Ways
from stream_interp.errors import ComputeDtypeUnavailable, IntegrityError, InvalidSnapshot
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import ProjectorHeader
from stream_interp.records.lane import NO_SAE, Lane
from stream_interp.records.moments import MOMENT_COORDINATES
from stream_interp.records.snapshot import Snapshot
from stream_interp.sae.encoder import SAE
from stream_interp.settings import SiteSettings

log = logging.getLogger(__name__)

MAX_LANES = 10_000  # names are the producers': without a bound they could fill the memory


@dataclass(frozen=True)
class Site:
    """One `[[sites]]` entry with its SAE loaded; None: T0 only. `d_out` is the width of what the SAE explains.

    `examples` None: off.
    """

    names: SiteSettings
    sae: SAE | None = None
    d_out: int = 0
    sae_bytes: int = 0  # 0 where an entry before holds the same SAE
    examples: ExampleRule | None = None

    def matches(self, snapshot: Snapshot) -> bool:
        """All four globs match."""
        n = self.names
        return (
            fnmatchcase(snapshot.tenant, n.tenant)
            and fnmatchcase(snapshot.model_id, n.model_id)
            and fnmatchcase(snapshot.model_revision, n.model_revision)
            and fnmatchcase(snapshot.hook_name, n.hook_name)
        )


@dataclass(frozen=True)
class LaneEntry:
    """A lane as ENCODE knows it.

    Attributes:
        sae: multiplying in the shape's compute_dtype.
        d_in: the SAE's, the projector's, or else that of the lane's first snapshot.
        has_dtype: False where this process cannot multiply as the projector says: nothing of the lane is encoded.
    """

    shape: LaneShape
    sae: Encoder | None
    d_in: int
    d_out: int
    examples: ExampleRule | None = None
    has_dtype: bool = True

    @property
    def lane_id(self) -> str:
        """Of the lane."""
        return self.shape.lane.lane_id

    @property
    def d_sae(self) -> int:
        """0 where only T0 runs."""
        return self.sae.d_sae if self.sae else 0


Projector = tuple[ProjectorHeader, Arrays]


class Lanes:
    """All lanes seen by this process. The first matching entry of `sites` wins.

    Args:
        sites: in the order of the settings.
        unknown: what becomes of a site that no entry names.
        ways: of the sites' SAEs; default: without a limit of memory.
    """

    def __init__(
        self, sites: Sequence[Site], unknown: Literal["t0", "reject"] = "t0", ways: Ways | None = None
    ) -> None:
        self._sites, self._unknown = tuple(sites), unknown
        self._ways = ways or Ways(site.sae for site in sites if site.sae)
        self._entries: dict[tuple[str, str, str, str], LaneEntry] = {}
        self._projectors: dict[str, Projector] = {}
        self._relearned: dict[str, int] = {}  # lane → version of the newest order to learn again

    def entry(self, snapshot: Snapshot) -> LaneEntry:
        """The lane of a snapshot.

        Raises:
            InvalidSnapshot: no such site, or widths that are not the lane's.
        """
        key = (snapshot.tenant, snapshot.model_id, snapshot.hook_name, snapshot.model_revision)
        entry = self._entries.get(key) or self._new(snapshot)
        _check_widths(entry, snapshot)
        self._entries[key] = entry
        return entry

    def outdated(self, header: ProjectorHeader) -> bool:
        """True for a projector that is not newer than the one in effect, or older than the order to do without."""
        lane_id = header.lane.lane_id
        return header.version <= self._version(lane_id) or header.version < self._relearned.get(lane_id, -1)

    def forget(self, lane_id: str, version: int) -> bool:
        """The lane learns again, so its requests have the shape of *fit*; False where something newer is in effect.

        Of a projector and an order of one version the projector counts, whichever comes first: DETECT has it so too.
        """
        if version <= max(self._version(lane_id), self._relearned.get(lane_id, -1)):
            return False
        self._relearned[lane_id] = version
        self._projectors.pop(lane_id, None)
        for key, entry in self._entries.items():
            if entry.lane_id == lane_id:
                self._entries[key] = self._shaped(entry, None)
                break
        return True

    def _version(self, lane_id: str) -> int:
        known = self._projectors.get(lane_id)
        return known[0].version if known else -1

    def apply(self, projector: Projector) -> None:
        """Requests from now on get the shape of this projector; one made for other widths is not used.

        Raises:
            IntegrityError: the lane is known, and has other widths.
        """
        lane = projector[0].lane
        for key, entry in self._entries.items():
            if entry.lane_id == lane.lane_id:
                self._entries[key] = self._shaped(entry, projector)
                break
        self._projectors[lane.lane_id] = projector

    def _new(self, snapshot: Snapshot) -> LaneEntry:
        site = next((site for site in self._sites if site.matches(snapshot)), None)
        if site is None and self._unknown == "reject":
            raise InvalidSnapshot("unknown_site", f"{snapshot.model_id[:80]!r}", "a site named by [[sites]]")
        if len(self._entries) >= MAX_LANES:
            raise InvalidSnapshot("unknown_site", f"lane {MAX_LANES + 1:,}", f"at most {MAX_LANES:,} lanes a process")
        sae = site.sae if site else None
        lane = Lane(
            tenant=snapshot.tenant,
            model_id=snapshot.model_id,
            hook_name=snapshot.hook_name,
            model_revision=snapshot.model_revision,
            sae_fingerprint=sae.fingerprint if sae else NO_SAE,
        )
        shape = LaneShape(lane=lane, massive=site.names.massive if site else "share")
        projector = self._projectors.get(lane.lane_id)
        d_in = sae.d_in if sae else projector[0].d_in if projector else snapshot.acts.shape[1]
        if site is None:
            entry = LaneEntry(shape, sae, d_in, 0)
        else:
            entry = LaneEntry(shape, sae, d_in, site.d_out, site.examples)
        return self._shaped(entry, projector) if projector and _fits(projector, entry) else entry

    def _shaped(self, entry: LaneEntry, projector: Projector | None) -> LaneEntry:
        """`entry` with the shape and the way that a projector gives it. Raises IntegrityError."""
        if projector is not None:
            _require_fit(projector, entry)
        shape = shape_of(entry.shape.lane, projector, entry.shape.massive)
        if entry.sae is None:
            return replace(entry, shape=shape)
        try:
            sae = self._ways.of(entry.sae.fingerprint, shape.compute_dtype)
        except ComputeDtypeUnavailable as error:
            about = {"lane_id": entry.lane_id}
            log.warning("lane %s: its requests are not encoded: %s", entry.lane_id, error, extra=about)
            return replace(entry, shape=shape, has_dtype=False)
        return replace(entry, shape=shape, sae=sae, has_dtype=True)


def _check_widths(entry: LaneEntry, snapshot: Snapshot) -> None:
    d_in = snapshot.acts.shape[1]
    if d_in != entry.d_in:
        raise InvalidSnapshot("wrong_d_in", f"acts [{len(snapshot.acts)}, {d_in}]", f"[n, {entry.d_in}]")
    target = snapshot.acts if snapshot.acts_out is None else snapshot.acts_out
    if entry.sae is not None and target.shape[1] != entry.d_out:
        name = "acts" if snapshot.acts_out is None else "acts_out"
        raise InvalidSnapshot("wrong_d_in", f"{name} of width {target.shape[1]}", f"{entry.d_out}, what the SAE gives")


def _fits(projector: Projector, entry: LaneEntry) -> bool:
    header, arrays = projector
    if not {"mean", "whitening", "cap"} <= arrays.keys() or arrays["whitening"].ndim != 2:
        return False
    kept, r = arrays["whitening"].shape
    return (
        (header.d_in, header.d_sae) == (entry.d_in, entry.d_sae)
        and arrays["mean"].shape == (r,)
        and (not kept or r == min(header.d_in, MOMENT_COORDINATES))
        and arrays["cap"].shape == arrays.get("surprise", arrays["cap"]).shape == (header.d_sae,)
    )


def _require_fit(projector: Projector, entry: LaneEntry) -> None:
    if not _fits(projector, entry):
        header, arrays = projector
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        raise IntegrityError(
            f"projector {header.version} of lane {entry.lane_id} is for d_in {header.d_in}, d_sae {header.d_sae}, with "
            f"arrays {shapes}; the lane has {entry.d_in} and {entry.d_sae}. Publish a new baseline for this lane"
        )
