"""Label files from disk, once, at start: a changed file needs a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from stream_interp.detect.labels import MAX_LABEL_CHARS, FeatureLabels, SiteLabels, parse_labels
from stream_interp.errors import UsageError
from stream_interp.settings import SiteSettings

MAX_FILE_BYTES = 32 * 1024 * 1024


def read_labels(path: str) -> FeatureLabels:
    """The labels in a file.

    Raises:
        UsageError: it cannot be read, is larger than 32 MiB, or is not as `detect.labels` says.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"sites.feature_labels: cannot read {path!r}: {error.strerror}; expected a readable .json or .csv file"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes; keep the ids that matter, with shorter labels")
    return parse_labels(content, path)


def read_site_labels(sites: Sequence[SiteSettings], say: Callable[[str], None]) -> SiteLabels:
    """The label files that sites name, each read once, and one line about each for the person who starts it.

    Raises:
        UsageError: as `read_labels`.
    """
    paths = dict.fromkeys(site.feature_labels for site in sites if site.feature_labels)
    files = {path: read_labels(path) for path in paths}
    for labels in files.values():
        say(_line(labels))
    return SiteLabels(sites, files)


def _line(labels: FeatureLabels) -> str:
    line = f"labels: {labels.file} names {len(labels.texts):,} features of SAE {labels.fingerprint[:12]}"
    if labels.cut:
        line += f"; {labels.cut:,} longer than {MAX_LABEL_CHARS} characters were cut"
    if labels.cleaned:
        line += f"; in {labels.cleaned:,} characters that do not print were replaced"
    return line + "; a changed file needs a restart"
