"""Under which addresses the page may be asked for: what DNS rebinding and other sites are held to.

A page of another site cannot read ours, unless its name is made to point at this machine: then
the browser takes both for one site. The Host header still tells the name that was asked for.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from engines import SettingsError

PORTS = {"http": 80, "https": 443}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_][A-Za-z0-9._-]{0,252})(?::([0-9]{1,5}))?")
_ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR


class Origin(NamedTuple):
    """What a browser calls one site."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask for what.

    Attributes:
        hosts: names and addresses that a Host header may have. One with a port of its own
            ("localhost:9000": a tunnel) or a scheme ("https://cam.example.org": a proxy that
            speaks TLS for us) means exactly that.
        port: where the server listens; hosts without a port of their own have this one.
        token: what everybody must show, or None.
        tls: the server itself speaks TLS.
    """

    hosts: frozenset[str]
    port: int
    token: str | None = None
    tls: bool = False

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    def origins(self) -> frozenset[Origin]:
        """Return the sites that are ours. SettingsError for a host that is none."""
        return frozenset(map(self._origin, self.hosts))

    def _origin(self, text: str) -> Origin:
        scheme, found, rest = text.rpartition("://")
        default = PORTS.get(scheme) if found else self.port
        if not found and rest.count(":") > 1 and not rest.startswith("["):
            rest = f"[{rest}]"
        place = parse_host(_ascii(rest), default or 0)
        if place is None or default is None:
            raise SettingsError(
                f"{text!r} is no host: give a name or an address, with a port where it has one of "
                "its own (box.local, 192.168.1.7, [fe80::1]:9000, https://cam.example.org)"
            )
        return Origin(scheme or self.scheme, *place)


def parse_host(text: str, default_port: int) -> tuple[str, int] | None:
    """Return (name, port) of a Host header in one spelling, or None if it is none."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    name, port = match[1].lower(), int(match[2] or default_port)
    if name.startswith("["):
        try:
            name = ipaddress.IPv6Address(name[1:-1]).compressed
        except ValueError:
            return None
    return (name, port) if port < 65536 else None


def parse_origin(text: str) -> Origin | None:
    """Return an Origin header's site, or None for "null" and everything else."""
    scheme, _, rest = text.partition("://")
    if scheme not in PORTS:
        return None
    place = parse_host(rest, PORTS[scheme])
    return None if place is None else Origin(scheme, *place)


def addresses_of(host: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """Return what a Host header may be when the server listens on `host`.

    That is the machine itself (localhost) for a loopback address; for another address or name
    itself and the machine's names; for the wildcards (0.0.0.0, ::) all names and addresses of the
    machine; and in any case `allowed`. May ask the resolver, so it may take a moment.
    """
    name = host.strip("[]").lower()
    found = {name}
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if name == "localhost" or (address is not None and address.is_loopback):
        found |= LOOPBACK
    elif address is None:
        found |= _resolved(name)
        found |= LOOPBACK if found & LOOPBACK else _own_names()
    elif address.is_unspecified:
        found = _own_addresses() | _own_names() | LOOPBACK
    else:
        found |= _own_names()
    return frozenset(found | set(allowed))


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    if parse_host(name, 0) is None or name.startswith("localhost"):
        return set()
    return {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}


def _own_addresses() -> set[str]:
    """Return the addresses of this machine, as far as the standard library finds them."""
    found = _resolved(socket.gethostname())
    for family, documentation in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:  # no packet is sent: the kernel only says from where it would go
            with socket.socket(family, socket.SOCK_DGRAM) as asked:
                asked.connect((documentation, 9))
                found.add(asked.getsockname()[0])
        except OSError:
            pass
    return {text for text in found | _of_interfaces() if not _is_link_local(text)}


def _of_interfaces() -> set[str]:
    """Return the IPv4 address of each interface: a board has Ethernet and a radio. Linux only."""
    found: set[str] = set()
    if sys.platform != "linux":
        return found
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                request = name.encode()[:15].ljust(256, b"\0")
                answer = fcntl.ioctl(asked.fileno(), _ADDRESS_OF_INTERFACE, request)
            except OSError:  # an interface without an address
                continue
            found.add(socket.inet_ntoa(answer[20:24]))
    return found


def _resolved(name: str) -> set[str]:
    try:
        return {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return set()


def _is_link_local(text: str) -> bool:
    """Those of IPv6 need a zone, which no browser takes."""
    address = ipaddress.ip_address(text)
    return address.version == 6 and address.is_link_local


def _ascii(name: str) -> str:
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return ""
