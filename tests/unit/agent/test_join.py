"""Joining: nothing is trusted on first use, a cut anywhere is made good by the next run, secrets stay closed."""

import asyncio
import base64
import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from nearcast.agent.identity import (
    load_or_make_key,
    read_credential,
    read_identity,
    read_membership,
    validity_of,
)
from nearcast.agent.join import ensure_joined
from nearcast.agent.layout import Layout
from nearcast.agent.renew import Renewer
from nearcast.agent.report import Troubles
from nearcast.agent.settings import Settings
from nearcast.agent.uplink import Trust
from nearcast.control.authority import Authority, load_or_create_authority
from nearcast.errors import IntegrityError, InvalidInput, Unavailable
from nearcast.gateway.render import Identity
from nearcast.resources.join import JoinAnswer, JoinRequest, JoinToken, encode_token

FLEET, SITE, NODE, URL = "fleet.test", "frankfurt", "node-1", "https://control.test:1"
RELEASES_ROOT, PLANS_ROOT = b"releases root", b"plans root"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Control:
    """A control plane with its authority; ``spoil`` changes its answer to a join."""

    authority: Authority
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    spoil: Callable[[JoinAnswer], JoinAnswer] = lambda answer: answer
    presents: str | None = None
    lost_answers: int = 0
    keys: set[str] = field(default_factory=set)

    def connect(self, url: str, authority_pem: str | None) -> "Control":
        self.seen.append((url, authority_pem))
        return self

    async def trust(self) -> Trust:
        return Trust(ca_pem=self.presents or self.authority.pem)

    async def join(self, request: JoinRequest) -> JoinAnswer:
        issued = self.authority.issue_node(request.csr_pem, SITE, request.node, now())
        self.keys.add(issued.key_sha256)
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unavailable("the answer was lost")
        return self.spoil(
            JoinAnswer(
                certificate_pem=issued.pem,
                ca_pem=self.authority.pem,
                credential="ncn_secret",
                fleet=FLEET,
                site=SITE,
                node=request.node,
                repository_url=f"{URL}/repository/",
                releases_root=base64.b64encode(RELEASES_ROOT).decode(),
                plans_root=base64.b64encode(PLANS_ROOT).decode(),
            )
        )

    async def close(self) -> None:
        return None


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(load_or_create_authority(tmp_path / "authority", FLEET, now()))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(data_dir=tmp_path / "data", run_dir=tmp_path / "run" / "x")
    made.make()
    return made


def settings_for(control: Control, layout: Layout, **changes: str) -> Settings:
    token = JoinToken(
        id="t",
        secret="s",
        site=SITE,
        fleet=FLEET,
        ca_sha256=control.authority.sha256,
        releases_root_sha256=hashlib.sha256(RELEASES_ROOT).hexdigest(),
        plans_root_sha256=hashlib.sha256(PLANS_ROOT).hexdigest(),
        expires_at="2099-01-01T00:00:00Z",
    )
    text = encode_token(msgspec.structs.replace(token, **changes))
    return Settings(data_dir=layout.data_dir, join=text, control=URL, node=NODE)


def join(control: Control, layout: Layout, settings: Settings | None = None) -> None:
    asyncio.run(ensure_joined(settings or settings_for(control, layout), layout, control.connect))  # type: ignore[arg-type]


def test_a_node_joins_and_its_secrets_are_its_own(control: Control, layout: Layout) -> None:
    join(control, layout)
    member = read_membership(layout)
    assert member is not None
    assert (member.fleet, member.site, member.node) == (FLEET, SITE, NODE)
    assert member.spiffe_id == f"spiffe://{FLEET}/site/{SITE}/node/{NODE}"
    assert member.repository == f"{URL}/repository/"
    for path in (layout.key, layout.credential):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_credential(layout) == "ncn_secret"
    assert read_identity(layout, member).authority_pem == control.authority.pem
    assert layout.releases_root.read_bytes() == RELEASES_ROOT
    assert layout.plans_root.read_bytes() == PLANS_ROOT


def test_the_token_goes_only_to_whoever_holds_the_pinned_authority(control: Control, layout: Layout) -> None:
    join(control, layout)
    assert control.seen == [(URL, None), (URL, control.authority.pem)]


def test_another_authority_gets_no_token(control: Control, layout: Layout, tmp_path: Path) -> None:
    control.presents = load_or_create_authority(tmp_path / "other", FLEET, now()).pem
    with pytest.raises(IntegrityError, match="another authority"):
        join(control, layout)
    assert control.seen == [(URL, None)]
    assert read_membership(layout) is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: msgspec.structs.replace(a, releases_root=base64.b64encode(b"x").decode()), "root of releases"),
        (lambda a: msgspec.structs.replace(a, plans_root=base64.b64encode(b"x").decode()), "root of plans"),
        (lambda a: msgspec.structs.replace(a, plans_root="not base64!"), "base64"),
        (lambda a: msgspec.structs.replace(a, site="elsewhere"), "expected to become"),
        (lambda a: msgspec.structs.replace(a, certificate_pem=a.ca_pem), "certificate"),
        (lambda a: msgspec.structs.replace(a, certificate_pem="-"), "in PEM"),
    ],
)
def test_an_answer_that_is_not_what_the_token_pins_is_refused(
    control: Control, layout: Layout, spoil: Callable[[JoinAnswer], JoinAnswer], words: str
) -> None:
    control.spoil = spoil
    with pytest.raises(IntegrityError, match=words):
        join(control, layout)
    assert read_membership(layout) is None
    assert not layout.credential.exists()


def test_a_certificate_of_another_key_or_another_name_is_refused(control: Control, layout: Layout) -> None:
    from nearcast.agent.identity import signing_request

    other = Layout(data_dir=layout.data_dir / "other", run_dir=layout.run_dir)
    other.make()
    foreign = control.authority.issue_node(signing_request(load_or_make_key(other), "x"), SITE, NODE, now()).pem
    control.spoil = lambda answer: msgspec.structs.replace(answer, certificate_pem=foreign)
    with pytest.raises(IntegrityError, match="another key"):
        join(control, layout)
    own = control.authority.issue_node(signing_request(load_or_make_key(layout), "x"), "ashburn", NODE, now()).pem
    control.spoil = lambda answer: msgspec.structs.replace(answer, certificate_pem=own)
    with pytest.raises(IntegrityError, match="expected a certificate for"):
        join(control, layout)


def test_a_lost_answer_is_asked_for_again_with_the_same_key(control: Control, layout: Layout) -> None:
    control.lost_answers = 1
    with pytest.raises(Unavailable):
        join(control, layout)
    join(control, layout)
    assert len(control.keys) == 1


@pytest.mark.parametrize("cut_after", ["key", "releases_root", "plans_root", "authority", "certificate", "credential"])
def test_a_cut_anywhere_is_made_good(
    control: Control, layout: Layout, cut_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nearcast.agent.identity
    import nearcast.agent.join
    from nearcast.durable import write_whole

    class Cut(Exception):
        pass

    def cutting(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        write_whole(path, data, mode=mode)
        if path == getattr(layout, cut_after):
            raise Cut

    for module in (nearcast.agent.join, nearcast.agent.identity):
        monkeypatch.setattr(module, "write_whole", cutting)
    with pytest.raises(Cut):
        join(control, layout)
    assert read_membership(layout) is None
    monkeypatch.undo()
    join(control, layout)
    member = read_membership(layout)
    assert member is not None
    read_identity(layout, member)
    assert len(control.keys) == 1


def test_a_member_needs_no_token_and_no_control_plane(control: Control, layout: Layout) -> None:
    join(control, layout)
    control.seen.clear()
    again = asyncio.run(ensure_joined(Settings(data_dir=layout.data_dir), layout, control.connect))  # type: ignore[arg-type]
    assert again.control == URL
    join(control, layout)
    assert control.seen == []


def test_a_control_plane_that_moved_takes_its_repository_along(control: Control, layout: Layout) -> None:
    join(control, layout)
    moved = replace(settings_for(control, layout), control="https://elsewhere.test:2/")
    join(control, layout, moved)
    member = read_membership(layout)
    assert member is not None
    assert (member.control, member.repository) == ("https://elsewhere.test:2", "https://elsewhere.test:2/repository/")


def test_a_directory_of_another_site_or_node_is_refused(control: Control, layout: Layout) -> None:
    join(control, layout)
    with pytest.raises(InvalidInput, match="belongs to"):
        join(control, layout, settings_for(control, layout, site="ashburn"))
    with pytest.raises(InvalidInput, match="belongs to node"):
        join(control, layout, replace(settings_for(control, layout), node="node-2"))


def test_who_has_not_joined_is_told_how(layout: Layout) -> None:
    with pytest.raises(InvalidInput, match="has not joined") as failure:
        asyncio.run(ensure_joined(Settings(data_dir=layout.data_dir), layout))
    assert "--join TOKEN" in failure.value.hint


def test_a_damaged_identity_is_named(control: Control, layout: Layout, tmp_path: Path) -> None:
    join(control, layout)
    member = read_membership(layout)
    assert member is not None
    layout.authority.write_text(load_or_create_authority(tmp_path / "other", FLEET, now()).pem)
    with pytest.raises(IntegrityError, match="is not the authority"):
        read_identity(layout, member)
    layout.key.write_text("nonsense")
    with pytest.raises(IntegrityError, match=r"key\.pem is damaged"):
        read_identity(layout, member)


class Renewals:
    """An uplink that issues certificates, or fails to."""

    def __init__(self, authority: Authority, site: str = SITE) -> None:
        self.authority, self.site, self.asked = authority, site, 0

    async def renew(self, csr_pem: str) -> str:
        self.asked += 1
        return self.authority.issue_node(csr_pem, self.site, NODE, now() + timedelta(days=11)).pem


def renewer(control: Control, layout: Layout, uplink: Renewals, days: float, installed: list[Identity]) -> Renewer:
    async def install(identity: Identity) -> None:
        installed.append(identity)

    member = read_membership(layout)
    assert member is not None
    when = now() + timedelta(days=days)
    return Renewer(uplink, layout, member, install, Troubles(), lambda: when)  # type: ignore[arg-type]


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_over(control: Control, layout: Layout) -> None:
    join(control, layout)
    before, uplink = layout.certificate.read_text(), Renewals(control.authority)
    installed: list[Identity] = []
    assert not asyncio.run(renewer(control, layout, uplink, 9.0, installed).renew_if_due())
    assert uplink.asked == 0
    assert asyncio.run(renewer(control, layout, uplink, 11.0, installed).renew_if_due())
    after = layout.certificate.read_text()
    assert validity_of(after).ends > validity_of(before).ends
    assert [identity.certificate_pem for identity in installed] == [after]


def test_a_renewal_that_is_not_ours_leaves_the_old_certificate(control: Control, layout: Layout) -> None:
    join(control, layout)
    before, installed = layout.certificate.read_text(), list[Identity]()
    with pytest.raises(IntegrityError, match="expected a certificate for"):
        asyncio.run(renewer(control, layout, Renewals(control.authority, "ashburn"), 11.0, installed).renew_if_due())
    assert layout.certificate.read_text() == before
    assert installed == []
