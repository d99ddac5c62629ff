"""A Redis connection that gives up soon and says plainly why. redis-py alone would retry ten times, 5 s each."""

from __future__ import annotations

import re

from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from stream_interp.errors import DependencyUnreachable, UsageError

REQUIRE_TIMEOUT_S = 2.0
_PREFIX = re.compile(r"^Error -?\d+ connecting to \S+ ")  # repeats the address


def connect(url: str, *, password: str | None = None, timeout_s: float) -> Redis:
    """A lazy client: no connection yet, no retries, RESP2 (one round trip less, and works from Redis 5 on).

    Args:
        url: `redis://`, `rediss://` or `unix://`; a password in it wins over `password`.
        password: from a file, so that it need not stand in the address.
        timeout_s: for connecting, and for every wait on the socket.

    Raises:
        UsageError: not a Redis address.
    """
    try:
        return Redis.from_url(
            url,
            password=password or None,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:  # whose text may hold a part of the password
        raise UsageError(
            f"redis.url: found {address(url)}, expected redis://[user:password@]host:port/db, also rediss:// or "
            "unix://; in a password, percent-encode / ? # @ and :"
        ) from None


def address(url: str) -> str:
    """The address without credentials and options, fit for messages."""
    scheme, separator, rest = url.rpartition("://")
    head, _, tail = rest.rpartition("@")
    # A `?` before the last `@`: a password in the options, or one that should have been encoded. Show neither.
    return scheme + separator + ("(hidden)" if "?" in head else tail.partition("?")[0])


def explain(error: RedisError, timeout_s: float) -> str:
    """What went wrong, in one clause."""
    if isinstance(error, AuthenticationError):
        return (
            "wrong or missing password" if "without any" not in str(error) else "it has no password, but one was given"
        )
    if isinstance(error, exceptions.TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return _PREFIX.sub("", str(error)).rstrip(".") or type(error).__name__


def require_redis(url: str, *, password: str | None = None, timeout_s: float = REQUIRE_TIMEOUT_S) -> None:
    """Prove at start that Redis answers and lets us in.

    Raises:
        DependencyUnreachable: it does not; the message names the address without credentials.
        UsageError: not a Redis address.
    """
    client = connect(url, password=password, timeout_s=timeout_s)
    try:
        client.ping()
    except RedisError as error:
        next_step = (
            "Set the right one in redis.url or redis.password_file."
            if isinstance(error, AuthenticationError)
            else "Start it, correct redis.url, or set redis.url to an empty text to run without the look-up view."
        )
        raise DependencyUnreachable("Redis", address(url), explain(error, timeout_s), next_step) from error
    finally:
        client.close()
