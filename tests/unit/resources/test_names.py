"""The grammar of names, where it is more than a pattern."""

import pytest

from nearcast.resources.names import is_address


@pytest.mark.parametrize("text", ["127.0.0.1:1", "203.0.113.7:65535", "[::1]:8443", "[2001:db8::7]:1"])
def test_an_address_and_a_port(text: str) -> None:
    assert is_address(text)


ODD = """
: | a:b | edge.example:1 | 127.0.0.1 | 127.0.0.1: | 127.0.0.1:0 | 127.0.0.1:65536 | 127.0.0.1:+1 | 127.0.0.1:000001
[127.0.0.1]:1 | ::1:8443 | [::1] | 127.0.0.1:\u0661
""".replace("|", "\n")


@pytest.mark.parametrize("text", ["", "127.0.0.1: 1", "[::1]:1\n", *(line.strip() for line in ODD.strip().split("\n"))])
def test_what_is_none(text: str) -> None:
    assert not is_address(text)
