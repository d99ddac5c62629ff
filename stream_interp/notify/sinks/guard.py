"""Which hosts may be called: public ones, and those that the operator allows by name or network.

Without it whoever writes an address into the settings, or owns the DNS name behind one, could make NOTIFY call what
only this machine can reach: cloud metadata, Kafka, other people's admin pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from stream_interp.errors import UsageError
from stream_interp.notify.sinks.sink import Resolve, SinkError, where
from stream_interp.notify.sinks.text import one_line
from stream_interp.settings import SinkSettings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_CARRIES_IPV4 = tuple(map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "::/96")))  # mapped, NAT64, compatible
_NEVER_PUBLIC = tuple(  # what `ipaddress` of some Python takes for public
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16", "3fff::/20"))
)


@dataclass(frozen=True)
class Allowed:
    """What may be called although it is not public, or without encryption."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def host(self, name: str) -> bool:
        """It is on the list by name, whatever it resolves to, or is itself an address in one of the networks."""
        return _folded(name) in self.hosts or (_is_address(name) and self.address(ip_address(name)))

    def address(self, address: Address) -> bool:
        """The address, or the IPv4 address it carries, lies in a network of the list."""
        forms = {address, _innermost(address)}
        return any(form in network for form in forms for network in self.networks)


def read_allow(settings: SinkSettings) -> Allowed:
    """The `allow` of a sink: host names, addresses, networks such as `10.0.0.0/8`.

    Raises:
        UsageError: an entry that is none of them.
    """
    hosts, networks = set(), []
    for entry in settings.allow:
        try:
            networks.append(ip_network(entry.strip("[]")))
        except ValueError as error:
            if not entry or set(entry) & set("/:@ *"):
                problem = f"{where(settings)}: allow holds {entry!r}: {error}"
                raise UsageError(f"{problem}; expected a host name, an address or a network like 10.0.0.0/8") from None
            hosts.add(_folded(entry))
    return Allowed(frozenset(hosts), tuple(networks))


def is_public(address: Address) -> bool:
    """Reached over the internet by everyone alike: no private, loopback, link-local, metadata, multicast address."""
    inner = _innermost(address)
    if any(inner in network for network in _NEVER_PUBLIC) or inner.is_multicast or not inner.is_global:
        return False
    return isinstance(inner, IPv4Address) or inner in _GLOBAL_UNICAST


@dataclass(frozen=True)
class Destination:
    """A host and port as the settings name them.

    Attributes:
        encrypted: TLS from the first byte, or an upgrade that the caller insists on.
    """

    host: str
    port: int
    encrypted: bool
    allowed: Allowed

    async def addresses(self, resolve: Resolve) -> list[str]:
        """Where to connect to, now: looked up once, checked, and to be used as they are.

        Raises:
            SinkError: it cannot be looked up (retried), or may not be called (not retried).
        """
        found = await self._look_up(resolve)
        if self.allowed.host(self.host):
            return found
        for text in found:
            address = ip_address(text)
            if self.allowed.address(address):
                continue
            if not is_public(address):
                raise self._refused(f"is {address}, which is not a public address")
            if not self.encrypted:
                raise self._refused("would be called without encryption")
        return found

    async def _look_up(self, resolve: Resolve) -> list[str]:
        if _is_address(self.host):
            return [self.host]
        try:
            found = await resolve(self.host, self.port)
        except (OSError, UnicodeError) as error:
            reason = one_line(getattr(error, "strerror", None) or "not a host name", 100)
            raise SinkError(f"{self.host} cannot be looked up: {reason}", retry=True) from None
        if not found:
            raise SinkError(f"{self.host} has no address", retry=True)
        return found

    def _refused(self, found: str) -> SinkError:
        return SinkError(f"{self.host} {found}; if it is meant, put {self.host!r} into allow of this sink", retry=False)


def _innermost(address: Address) -> Address:
    if isinstance(address, IPv6Address) and any(address in network for network in _CARRIES_IPV4):
        return IPv4Address(address.packed[-4:])
    return address


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _folded(host: str) -> str:
    return host.rstrip(".").lower()
