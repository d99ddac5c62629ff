"""`[[sites]]` with their SAEs loaded, each path once, and the key of their examples."""

from __future__ import annotations

from stream_interp.encode.examples import ExampleRule, Turns
from stream_interp.encode.lanes import Site
from stream_interp.errors import UsageError
from stream_interp.sae.encoder import SAE
from stream_interp.sae.loading import load_encoder
from stream_interp.secret_files import read_secret
from stream_interp.settings import Settings

MIN_KEY_CHARS = 16


def load_sites(settings: Settings) -> list[Site]:
    """All entries, in order.

    Raises:
        SAELoadError: an SAE that cannot be trusted to be read rightly, or does not fit.
        UsageError: no such device; a set without its layer; no usable key for hashed examples.
    """
    loaded: dict[str, SAE] = {}
    rules = _example_rules(settings)
    sites = []
    for names in settings.sites:
        is_new = bool(names.sae) and names.sae not in loaded
        if is_new:
            memory = settings.sae.max_memory_bytes
            loaded[names.sae] = load_encoder(names.sae, device=settings.sae.device, max_memory_bytes=memory)
        sae = loaded.get(names.sae)
        if sae is None:
            sites.append(Site(names))
            continue
        size = sae.memory_bytes if is_new else 0
        sites.append(Site(names, sae, sae.config.d_out, size, rules[names.examples]))
    return sites


def site_line(site: Site) -> str:
    """What a site is encoded with, for the person who starts ENCODE."""
    names, sae, examples = site.names, site.sae, site.examples
    line = f"site {names.tenant}/{names.model_id}/{names.model_revision}/{names.hook_name}: SAE "
    line += f"{sae.fingerprint[:12]}, {sae.d_in}×{sae.d_sae}" if sae else "none, T0 only"
    if sae and sae.explains == "nothing":
        line += ", a layer of a cross-layer transcoder: no reconstruction error"
    if sae and examples:
        held_bytes = examples.window_bytes(sae.d_sae)
        line += f"; examples of {examples.features} features a cut, request ids {names.examples}"
        line += f", at most {held_bytes:,} bytes an open window"
    elif names.examples != "off":
        line += "; no examples without an SAE"
    return line


def _example_rules(settings: Settings) -> dict[str, ExampleRule | None]:
    """`sites.examples` → how they are made; one order of features for all. Raises UsageError."""
    features, turns = settings.examples.features, Turns()
    rules: dict[str, ExampleRule | None] = {"off": None, "plain": ExampleRule(features, None, turns)}
    if any(site.examples == "hashed" for site in settings.sites):
        rules["hashed"] = ExampleRule(features, read_example_key(settings.examples.key_file), turns)
    return rules


def read_example_key(path: str) -> bytes:
    """The HMAC key of `sites.examples = "hashed"`. Raises UsageError: none, or one that can be guessed."""
    found = read_secret(path, "examples.key_file") if path else ""
    if len(found) < MIN_KEY_CHARS:
        raise UsageError(
            f"examples.key_file: a key of {len(found)} characters, but sites.examples = hashed needs at least "
            f"{MIN_KEY_CHARS}, or ids can be guessed; write one with `openssl rand -hex 32` and name its file"
        )
    return found.encode()
