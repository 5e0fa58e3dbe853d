"""Quantities, versions, addresses and URLs, read as Kubernetes reads them."""

from __future__ import annotations

import pytest

from kgate_policy.cel import kubernetes as k8s

QUANTITIES = [
    ("1", "1"),
    ("1000m", "1"),
    ("1.5", "1.5"),
    ("1500m", "1.5"),
    ("2Gi", str(2 * 2**30)),
    ("1k", "1000"),
    ("1e3", "1000"),
    ("1E3", "1000"),
    ("1E", "1000000000000000000"),
    ("-5n", "-0.000000005"),
    ("+.5", "0.5"),
    ("0", "0"),
    ("-0", "0"),
    ("0.000", "0"),
]


@pytest.mark.parametrize(("text", "expected"), QUANTITIES)
def test_a_quantity_has_one_canonical_form(text: str, expected: str) -> None:
    assert k8s.quantity(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "1ki", "1 k", "1e999999999", "1e", "1.2.3", "Gi", "\uff11"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|exponent"):
        k8s.quantity(text)


def test_quantities_add_and_compare_exactly() -> None:
    assert k8s.add("0.1", "0.2") == "0.3"
    assert k8s.add("1", "3", -1) == "-2"
    assert k8s.compare("0.3", k8s.add("0.1", "0.2")) == 0
    assert k8s.as_integer(k8s.quantity("3Ki")) == 3072


@pytest.mark.parametrize("text", ["0.5", "99999999999999999999"])
def test_a_quantity_that_is_no_64_bit_integer_is_refused_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        k8s.as_integer(text)


# The order of semver.org, section 11.
ORDER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0",
]


def test_versions_are_ordered_as_the_specification_says() -> None:
    for position, lower in enumerate(ORDER):
        for higher in ORDER[position + 1 :]:
            assert k8s.semver_compare(lower, higher) == -1
            assert k8s.semver_compare(higher, lower) == 1
    assert k8s.semver_compare("1.0.0+a", "1.0.0+b") == 0


@pytest.mark.parametrize(
    "text", ["1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", ""]
)
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="semantic version"):
        k8s.semver(text)


def test_parts_of_a_version() -> None:
    assert [k8s.semver_part("1.20.3-rc.1", index) for index in range(3)] == [1, 20, 3]


def test_addresses_and_networks() -> None:
    assert k8s.ip("2001:DB8::0:1") == "2001:db8::1"
    assert k8s.contains_ip("10.0.0.0/8", "10.255.0.1")
    assert not k8s.contains_ip("10.0.0.0/8", "11.0.0.1")
    assert not k8s.contains_ip("10.0.0.0/8", "::1")
    assert k8s.contains_cidr("10.0.0.0/8", "10.1.0.0/16")
    assert not k8s.contains_cidr("10.1.0.0/16", "10.0.0.0/8")
    assert not k8s.contains_cidr("10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    "text", ["10.0.0", "10.0.0.256", "fe80::1%eth0", "::ffff:1.2.3.4", "010.0.0.1"]
)
def test_odd_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        k8s.ip(text)


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "x/8"])
def test_odd_networks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        k8s.cidr(text)


def test_urls_and_their_parts() -> None:
    text = k8s.url("https://user@Example.org:8443/a%20b?q=1&q=2")
    parts = [k8s.url_part(text, name) for name in ("scheme", "host", "hostname", "port", "path")]
    assert parts == ["https", "Example.org:8443", "example.org", "8443", "/a%20b"]
    assert k8s.url_query(text) == {"q": ["1", "2"]}
    assert k8s.url_part("https://example.org/", "port") == ""


@pytest.mark.parametrize("text", ["example", "https://a:99999/", "https://a b/", ""])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        k8s.url(text)
