"""An older baseline as a new version: what `baseline promote` and `rollback` publish. Pure.

Versions only ever grow, so that ENCODE, which follows the newest projector, and DETECT, which arms by the newest
baseline, both switch; projector and baseline always move together, and the old versions stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from stream_interp.errors import IntegrityError
from stream_interp.records.control import Kind, Versioned, make_control, read_baseline, read_projector


def find_version(controls: Iterable[Versioned], kind: Kind, lane_id: str, version: int) -> Versioned | None:
    """The control record of this kind, lane and version."""
    wanted = (kind, lane_id, version)
    return next((c for c in controls if (c.manifest.kind, c.manifest.lane.lane_id, c.manifest.version) == wanted), None)


def promoted(
    controls: Iterable[Versioned], baseline: Versioned, version: int, author: str, reason: str
) -> list[Versioned]:
    """The baseline and the projector it was made with, both as `version`, to be published in one transaction.

    Args:
        controls: everything on `interp.control`.
        baseline: the one to bring back.
        version: larger than every version of the lane, Unix epoch ms.
        author: who, as claimed.
        reason: why.

    Raises:
        IntegrityError: the projector is not on the topic, or a record cannot be read.
    """
    header, arrays = read_baseline(baseline)
    projector = find_version(controls, "projector", header.lane.lane_id, header.projector_version)
    if projector is None:
        raise IntegrityError(
            f"baseline {header.version} of lane {header.lane.lane_id} was made with projector "
            f"{header.projector_version}, which is not on interp.control; expected both, because windows of another "
            "projector feed none of its tests. Choose another version, or make a new one with `baseline build`"
        )
    projector_header, projector_arrays = read_projector(projector)
    origin = header.origin or header.version
    return [
        make_control("projector", structs.replace(projector_header, version=version), projector_arrays, author, reason),
        make_control(
            "baseline",
            structs.replace(header, version=version, projector_version=version, origin=origin),
            arrays,
            author,
            reason,
        ),
    ]
