"""Quantities, semantic versions, IP addresses, CIDRs and URLs as Kubernetes reads them.

Values are canonical texts, so that equal values compare equal: `1000m` and `1` are one quantity.
Bad input raises ValueError, which the engine turns into an error value. Sizes are bounded: an
exponent of a billion is refused, not expanded.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Context, Decimal
from typing import Final
from urllib.parse import parse_qs, urlsplit

_QUANTITY: Final = re.compile(r"([+-]?(?:[0-9]{1,32}(?:\.[0-9]{0,32})?|\.[0-9]{1,32}))(.{0,5})")
_EXPONENT: Final = re.compile(r"[eE]([+-]?[0-9]{1,2})")
_MAX_EXPONENT: Final = 30  # more than Kubernetes' largest quantity needs
_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(10) ** (3 * (power + 1)) for power, letter in enumerate("kMGTPE")},
    **{f"{letter}i": Decimal(2) ** (10 * (power + 1)) for power, letter in enumerate("KMGTPE")},
}
_PRECISE: Final = Context(prec=120)
_MAX_INT: Final = 2**63
_NUMBER: Final = r"(0|[1-9][0-9]{0,17})"
# https://semver.org, the grammar of version 2.0.0, with bounded numbers.
_SEMVER: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
    r"(?:\.(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)
_MAX_VERSION: Final = 256  # characters

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def quantity(text: str) -> str:
    """Return a quantity such as `1500m`, `2Gi` or `1e3` in canonical form."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a quantity")
    number, suffix = Decimal(found[1]), found[2]
    if exponent := _EXPONENT.fullmatch(suffix):
        if abs(int(exponent[1])) > _MAX_EXPONENT:
            raise ValueError(f"{text[:40]!r} has an exponent beyond {_MAX_EXPONENT}")
        factor = Decimal(10) ** int(exponent[1])
    elif suffix in _SUFFIXES:
        factor = _SUFFIXES[suffix]
    else:
        raise ValueError(f"{text[:40]!r} is not a quantity")
    return canonical(_PRECISE.multiply(number, factor))


def canonical(number: Decimal) -> str:
    """Return a number as text without exponent and trailing zeros."""
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def add(left: str, right: str, sign: int = 1) -> str:
    """Return the sum (or difference) of two canonical quantities."""
    return canonical(_PRECISE.add(Decimal(left), sign * Decimal(right)))


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1 for two canonical quantities."""
    return int(Decimal(left).compare(Decimal(right)))


def as_integer(text: str) -> int:
    """Return a canonical quantity as a whole number; raises ValueError."""
    number = Decimal(text)
    if number != number.to_integral_value() or abs(number) >= _MAX_INT:
        raise ValueError(f"{text} is not a whole number of 64 bits")
    return int(number)


def semver(text: str) -> str:
    """Return a semantic version unchanged; raises ValueError if it is none."""
    if len(text) > _MAX_VERSION or _SEMVER.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a semantic version")
    return text


def semver_part(text: str, index: int) -> int:
    """Return major (0), minor (1) or patch (2)."""
    found = _SEMVER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a semantic version")
    return int(found[index + 1])


def semver_compare(left: str, right: str) -> int:
    """Return -1, 0 or 1 by precedence (semver.org, section 11; build metadata does not count)."""
    first, second = _precedence(left), _precedence(right)
    return (first > second) - (first < second)


def _precedence(text: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    found = _SEMVER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a semantic version")
    # Numeric identifiers are lower than words; a version without a pre-release is the highest.
    marks = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, "" if part.isdigit() else part)
        for part in (found[4] or "").split(".")
        if part
    )
    return tuple(int(found[index]) for index in (1, 2, 3)), found[4] is None, marks


def ip(text: str) -> str:
    """Return an IP address in canonical form; zones and mapped IPv4 are refused."""
    return str(address(text))


def address(text: str) -> Address:
    """Read an IP address; raises ValueError."""
    found = ipaddress.ip_address(text)
    if isinstance(found, ipaddress.IPv6Address) and (found.scope_id or found.ipv4_mapped):
        raise ValueError(f"{text!r} has a zone or is an IPv4 address inside an IPv6 one")
    return found


def cidr(text: str) -> str:
    """Return a CIDR such as `10.0.0.0/8` in canonical form; host bits are kept."""
    found = ipaddress.ip_interface(text)
    if "/" not in text or not text.rpartition("/")[2].isdigit():
        raise ValueError(f"{text[:60]!r} is not a CIDR")
    return str(found)


def network(text: str) -> Network:
    """Return the network of a CIDR."""
    return ipaddress.ip_interface(text).network


def contains_ip(outer: str, inner: str) -> bool:
    """Return whether an address lies in a network."""
    return address(inner) in network(outer)


def contains_cidr(outer: str, inner: str) -> bool:
    """Return whether a network lies in another one."""
    large, small = network(outer), network(cidr(inner))
    return (
        large.version == small.version
        and int(large.network_address) <= int(small.network_address)
        and int(small.broadcast_address) <= int(large.broadcast_address)
    )


def url(text: str) -> str:
    """Return an absolute URL or an absolute path unchanged; raises ValueError."""
    parts = urlsplit(text)
    if any(char.isspace() for char in text) or not (
        (parts.scheme and (parts.netloc or parts.path)) or text.startswith("/")
    ):
        raise ValueError(f"{text[:60]!r} is not a URL")
    _ = parts.port  # raises ValueError if it is not a number in range
    return text


def url_part(text: str, part: str) -> str:
    """Return scheme, host (with port), hostname, port or escaped path of a URL."""
    parts = urlsplit(text)
    match part:
        case "host":
            return parts.netloc.rpartition("@")[2]
        case "hostname":
            return parts.hostname or ""
        case "port":
            return "" if parts.port is None else str(parts.port)
        case "path":
            return parts.path
        case _:
            return parts.scheme


def url_query(text: str) -> dict[str, list[str]]:
    """Return the query's parameters."""
    return parse_qs(urlsplit(text).query, keep_blank_values=True, max_num_fields=100)
