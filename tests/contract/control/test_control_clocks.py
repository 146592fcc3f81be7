"""Clocks that are wrong, or are set while the control plane runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from nearcast.agent.identity import load_or_make_key, signing_request
from nearcast.agent.layout import layout_of
from nearcast.control.authority import load_or_create_authority
from nearcast.control.plane import open_control_plane
from nearcast.control.settings import Settings
from nearcast.control.steady import SteadyClock

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("off", [-HOUR, HOUR], ids=["an hour behind", "an hour ahead"])
def test_a_node_whose_clock_is_an_hour_off_honours_a_new_certificate(tmp_path: Path, off: timedelta) -> None:
    layout = layout_of(tmp_path / "node")
    layout.make()
    authority = load_or_create_authority(tmp_path / "keys", "fleet.test", NOW)
    issued = authority.issue_node(signing_request(load_or_make_key(layout), "n"), "fra", "n", NOW)
    for pem in (issued.pem, authority.pem):
        certificate = x509.load_pem_x509_certificate(pem.encode())
        assert certificate.not_valid_before_utc <= NOW + off <= certificate.not_valid_after_utc


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_that_is_set_silences_no_node_and_wakes_none(jump: timedelta) -> None:
    wall, elapsed_s = [NOW], [100.0]
    clock = SteadyClock(lambda: wall[0], lambda: elapsed_s[0])
    assert clock() == NOW
    wall[0] += jump
    elapsed_s[0] += 7.0
    assert clock() == NOW + timedelta(seconds=7)


def test_a_control_plane_of_its_own_measures_silence_by_such_a_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = [datetime.now(UTC)]
    monkeypatch.setattr("nearcast.control.plane._wall", lambda: wall[0])
    plane = open_control_plane(Settings(data_dir=tmp_path, node_timeout_s=60.0, fleet="fleet.test"))
    try:
        assert plane.nodes.seen("fra", "n")
        wall[0] += HOUR
        assert not plane.nodes.seen("fra", "n"), "it has not been away"
    finally:
        plane.close()
