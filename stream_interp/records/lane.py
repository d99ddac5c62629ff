"""Site and lane: the identity that all statistics, baselines and status belong to (design §1)."""

from __future__ import annotations

import hashlib

from msgspec import Struct

NO_SAE = "none"  # the fingerprint of a lane on which only T0 runs


class Lane(Struct, frozen=True, kw_only=True, order=True):
    """A site (tenant, model_id, hook_name) with its model revision and SAE fingerprint."""

    tenant: str = "default"
    model_id: str
    hook_name: str
    model_revision: str = "unversioned"
    sae_fingerprint: str = NO_SAE

    @property
    def lane_id(self) -> str:
        """First 16 hex digits of sha256 over the length-prefixed parts, so that no two lanes collide by joining."""
        return digest(self.tenant, self.model_id, self.hook_name, self.model_revision, self.sae_fingerprint)[:16]


def digest(*parts: str | int) -> str:
    """sha256 over length-prefixed parts, in hex. The one way ids are made here."""
    sha = hashlib.sha256()
    for part in parts:
        raw = str(part).encode()
        sha.update(len(raw).to_bytes(4, "big") + raw)
    return sha.hexdigest()
