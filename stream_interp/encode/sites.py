"""`[[sites]]` with their SAEs loaded, each path once."""

from __future__ import annotations

from stream_interp.encode.lanes import Site
from stream_interp.sae.encoder import SAE
from stream_interp.sae.loading import load
from stream_interp.settings import Settings


def load_sites(settings: Settings) -> list[Site]:
    """All entries, in order.

    Raises:
        SAELoadError: an SAE that cannot be trusted to be read rightly, or does not fit.
        UsageError: no such device.
    """
    loaded: dict[str, SAE] = {}
    sites = []
    for names in settings.sites:
        is_new = bool(names.sae) and names.sae not in loaded
        if is_new:
            memory = settings.sae.max_memory_bytes
            loaded[names.sae] = load(names.sae, device=settings.sae.device, max_memory_bytes=memory)
        sae = loaded.get(names.sae)
        if sae is None:
            sites.append(Site(names))
            continue
        d_out, size = sae.canonical.W_dec.shape[1], sae.memory_bytes if is_new else 0
        sites.append(Site(names, sae, d_out, str(sae.device), size))
    return sites
