"""Kafka's jars: downloaded once into the user's cache, checked against the lock file before every start.

The lock file `kafka_jars.lock.json` maps Maven coordinates `group:artifact:version` to sha256; only these files come
onto the class path. `python -m stream_interp.embedded.relock` writes it anew for another version of Kafka.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream_interp.errors import DependencyUnreachable, IntegrityError, UsageError

LOCK_PATH = Path(__file__).with_name("kafka_jars.lock.json")
PARALLEL_DOWNLOADS = 4

Lock = Mapping[str, str]
"""Maven coordinate -> sha256 of the jar, in hex."""
Fetch = Callable[[str, Path], Path]
"""(coordinate, scratch folder) -> the downloaded jar."""


def read_lock() -> Lock:
    """The committed lock."""
    lock: dict[str, str] = json.loads(LOCK_PATH.read_text())
    return lock


def jar_name(coordinate: str) -> str:
    """`group:artifact:version` -> `artifact-version.jar`."""
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def cache_dir(environ: Mapping[str, str]) -> Path:
    """`STREAM_INTERP_CACHE`, else `stream-interp` in `XDG_CACHE_HOME` or `~/.cache`."""
    if own := environ.get("STREAM_INTERP_CACHE"):
        return Path(own).expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stream-interp"


def kafka_classpath(environ: Mapping[str, str]) -> str:
    """The class path of Kafka: the `libs` of `KAFKA_HOME` if set, else the locked jars in the cache.

    Raises:
        UsageError: `KAFKA_HOME` is no Kafka.
        IntegrityError: a jar is not the one that the lock names.
        DependencyUnreachable: the jars are not in the cache and cannot be downloaded.
    """
    if home := environ.get("KAFKA_HOME"):
        return _kafka_home_classpath(Path(home))
    lock, cache = read_lock(), cache_dir(environ)
    jars = cache / f"kafka-jars-{_lock_id(lock)}"
    if jars.is_dir():
        verify(jars, lock)
    else:
        install(jars, lock, fetch_jar)
    return ":".join(str(jars / jar_name(coordinate)) for coordinate in lock)


def _kafka_home_classpath(home: Path) -> str:
    libs = home / "libs"
    if not any(libs.glob("kafka_2.*.jar")):
        raise UsageError(
            f"KAFKA_HOME={home}: found no kafka_2.*.jar in {libs}, expected a Kafka release. Correct or unset it."
        )
    return str(libs / "*")


def _lock_id(lock: Lock) -> str:
    """Another lock, another folder: an upgrade never meets the jars of the version before."""
    return hashlib.sha256(json.dumps(dict(lock), sort_keys=True).encode()).hexdigest()[:12]


def verify(jars: Path, lock: Lock) -> None:
    """Check every jar of `lock` in the folder `jars`.

    Raises:
        IntegrityError: one is missing or has another sha256; the file is named.
    """
    for coordinate, expected in lock.items():
        path = jars / jar_name(coordinate)
        found = _sha256(path) if path.is_file() else "no such file"
        if found != expected:
            raise IntegrityError(
                f"{path}: found sha256 {found}, expected {expected} ({LOCK_PATH.name}). "
                f"Do not run it; delete the folder {jars} to download the jars anew."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def install(jars: Path, lock: Lock, fetch: Fetch) -> None:
    """Download, verify, then rename into place: `jars` appears whole or not at all.

    Raises:
        IntegrityError: a download is not what the lock names.
        DependencyUnreachable: a download failed.
    """
    try:
        jars.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{jars.name}-", dir=jars.parent))
    except OSError as error:
        raise _unavailable(jars, f"the cache folder is not writable ({error})") from error
    try:
        staged = scratch / "jars"
        staged.mkdir()
        _download_all(staged, lock, fetch, scratch)
        verify(staged, lock)
        _move_into_place(staged, jars)
        verify(jars, lock)
    except (IntegrityError, DependencyUnreachable):
        raise
    except Exception as error:  # jgo lets through whatever its HTTP library raises
        raise _unavailable(jars, f"the download failed ({type(error).__name__}: {error})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move_into_place(staged: Path, jars: Path) -> None:
    try:
        staged.rename(jars)
    except OSError:
        if not jars.is_dir():  # else another process was faster
            raise


def _download_all(staged: Path, lock: Lock, fetch: Fetch, scratch: Path) -> None:
    with _progress(len(lock)) as advance, ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        try:
            for path in pool.map(lambda coordinate: fetch(coordinate, scratch), lock):
                path.rename(staged / path.name)
                advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _progress(jars: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Downloading Apache Kafka (44 MB, once)", total=jars)
        yield lambda: progress.advance(task)


def fetch_jar(coordinate: str, scratch: Path) -> Path:
    """Download one jar with jgo, from the repositories that jgo's own configuration names."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    remote = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    group, artifact, version = coordinate.split(":")
    # A scratch repository: a download that is cut short must not stay in the user's own as if it were whole.
    maven = MavenContext(repo_cache=scratch / "repository", remote_repos=remote)
    path: Path = maven.project(group, artifact).at_version(version).artifact().resolve()
    return path


def _unavailable(jars: Path, found: str) -> DependencyUnreachable:
    return DependencyUnreachable(
        "Apache Kafka's jars",
        str(jars),
        found,
        "Use a running Kafka with --bootstrap HOST:PORT, or unpack a Kafka release and set KAFKA_HOME to it, "
        f"or bring the cache folder {jars.parent} from a machine with network (STREAM_INTERP_CACHE moves it).",
    )
