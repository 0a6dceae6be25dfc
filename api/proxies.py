"""Who asks, where a proxy stands between?

A connection comes from the proxy; whom it asks for, it writes at the end of X-Forwarded-For, behind whatever was there
already. So from the right each address is believed as long as the one to its right is a trusted proxy's; the first one
that is not is the client. Anything further left the client can have made up. Without `--trusted-proxies` no header is
looked at. `Forwarded` (RFC 7239) never is: who writes the one header passes on the other as the client sent it.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HEADER: Final = b"x-forwarded-for"
MAX_HOPS: Final = 32  # that are looked at, from the right


class Proxies:
    """The proxies that are trusted to say who asks. Any thread.

    Parameters
    ----------
    trusted : networks, as `networks` makes them
    """

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of who asks, in its shortest form; of a peer without an address what it is called.

        Parameters
        ----------
        peer : the address from which the connection comes
        headers : of the request, names in small letters
        """
        address = _address(peer)
        if address is None:
            return peer
        if self._trusted and self._trusts(address):
            hops = b",".join(value for name, value in headers if name == HEADER).decode("latin-1")
            for hop in reversed(hops.split(",")[-MAX_HOPS:]):
                named = _address(_without_port(hop.strip()))
                if named is None:  # `unknown`, or not an address: who is behind it cannot be known
                    break
                address = named
                if not self._trusts(address):
                    break
        return str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def networks(named: Sequence[str]) -> list[Network]:
    """Return the networks of addresses and networks; `*` is every one. Raises ValueError."""
    found: list[Network] = []
    for each in named:
        for one in ("0.0.0.0/0", "::/0") if each == "*" else (each.strip("[]"),):
            try:
                network = ipaddress.ip_network(one, strict=False)
            except ValueError:
                raise ValueError(f"{each!r} is no address and no network: write 10.0.0.0/8, 192.0.2.7 or *") from None
            mapped = network.network_address.ipv4_mapped if network.version == 6 else None
            if mapped is not None and network.prefixlen >= 96:
                network = ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}", strict=False)
            found.append(network)
    return found


def _address(text: str) -> Address | None:
    """Return an address; one of IPv4 that came over a socket of both kinds as what it is."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _without_port(hop: str) -> str:
    """Return the address of `192.0.2.7:4711`, `[2001:db8::7]:4711`, or of either without a port."""
    hop = hop.strip('"')
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
