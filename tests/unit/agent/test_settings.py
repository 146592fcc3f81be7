"""Addresses as people write them, and settings that cannot work refused at once."""

from pathlib import Path

import pytest

from nearcast.agent.arguments import parse
from nearcast.agent.ports import addresses, prove, reconsider
from nearcast.agent.settings import Address, Settings, address, default_node_name
from nearcast.agent.supervise import EngineLaunch
from nearcast.errors import InvalidInput
from nearcast.resources.names import is_site_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("localhost:80", Address("127.0.0.1", 80)),
        ("[::1]:8443", Address("::1", 8443)),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535)),
    ],
)
def test_an_address_is_read(text: str, expected: Address) -> None:
    assert address(text) == expected
    assert address(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", ":80", "1.2.3.4:65536", "example.com:80"]
)
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    if text == "127.0.0.1:":
        assert address(text) == Address("127.0.0.1", 0)
        return
    with pytest.raises(InvalidInput, match="expected"):
        address(text)


def test_what_peers_connect_to_may_lack_a_port_and_is_no_name() -> None:
    assert address("192.0.2.7", port_required=False) == Address("192.0.2.7", 0)
    with pytest.raises(InvalidInput, match=r"expected an IP address, got 'edge\.example'"):
        address("edge.example", port_required=False)


def test_a_wildcard_needs_an_address_that_peers_can_use(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="peers cannot connect"):
        Settings(data_dir=tmp_path, peer=Address("0.0.0.0", 8443))
    Settings(data_dir=tmp_path, peer=Address("0.0.0.0", 8443), advertise_peer=Address("192.0.2.7", 0))


def test_the_command_line(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("ncj_abc\n")
    settings = parse(
        ["--data-dir", str(tmp_path), "--join-file", str(token), "--public", "0.0.0.0:8080", "--status-s", "7"]
    )
    assert settings.join == "ncj_abc"
    assert settings.public == Address("0.0.0.0", 8080)
    assert settings.peer == Address("127.0.0.1", 0)
    assert settings.status_s == 7.0
    with pytest.raises(InvalidInput, match="node name"):
        parse(["--data-dir", str(tmp_path), "--node", "Not A Name"])


def test_a_host_gives_a_valid_node_name() -> None:
    assert is_site_name(default_node_name())


def test_open_ports_are_chosen_once_and_remembered(tmp_path: Path) -> None:
    settings, file = Settings(data_dir=tmp_path), tmp_path / "ports.json"
    first = addresses(settings, file)
    assert first.public.port != first.peer.port
    assert 0 not in {first.public.port, first.peer.port}
    assert addresses(settings, file) == first
    assert first.url == f"http://127.0.0.1:{first.public.port}"


def test_a_port_that_was_asked_for_replaces_the_chosen_one_only(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = addresses(Settings(data_dir=tmp_path), file)
    second = addresses(Settings(data_dir=tmp_path, public=Address("127.0.0.1", 4567)), file)
    assert second.public.port == 4567
    assert second.peer == first.peer


def test_a_port_that_never_served_may_be_given_up_and_one_that_did_may_not(tmp_path: Path) -> None:
    settings, file = Settings(data_dir=tmp_path), tmp_path / "ports.json"
    addresses(settings, file)
    assert reconsider(settings, file)
    first = addresses(settings, file)
    prove(file)
    assert not reconsider(settings, file)
    assert addresses(settings, file) == first


def test_what_is_advertised_follows_what_is_known(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        public=Address("0.0.0.0", 8080),
        peer=Address("0.0.0.0", 8443),
        advertise_peer=Address("edge.example", 0),
    )
    found = addresses(settings, tmp_path / "ports.json")
    assert found.advertised_peer == Address("edge.example", 8443)
    assert found.url == "http://edge.example:8080"


def test_the_largest_body_reaches_the_engine_and_has_bounds(tmp_path: Path) -> None:
    settings = parse(["--data-dir", str(tmp_path), "--max-body", "1048576"])
    assert settings.max_body_bytes == 1048576
    command = EngineLaunch(tmp_path, tmp_path / "log", max_body_bytes=settings.max_body_bytes).command()
    assert command[command.index("--max-body") + 1] == "1048576"
    for wrong in ("0", str(2**31)):
        with pytest.raises(InvalidInput, match="largest body"):
            parse(["--data-dir", str(tmp_path), "--max-body", wrong])
