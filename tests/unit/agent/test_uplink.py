"""What answers of the control plane mean, and what is never sent."""

import asyncio
from collections.abc import Callable

import httpx
import msgspec
import pytest

from nearcast.agent.uplink import ControlUplink
from nearcast.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from nearcast.resources.status import EngineStatus, GatewayStatus, NodeStatus

STATUS = NodeStatus(
    site="here",
    node="n",
    software="test",
    started_at="then",
    plan_version=1,
    plan_revision="r",
    routed_version=1,
    gateway=GatewayStatus(url="http://x", peer_address="x:1", ready=True),
    engine=EngineStatus(ready=True),
)


def report(answer: Callable[[httpx.Request], httpx.Response]) -> int:
    async def once() -> int:
        uplink = ControlUplink(
            "https://control.test:1/",
            authority_pem=None,
            credential="ncn_x",
            transport=httpx.MockTransport(answer),
        )
        try:
            return await uplink.report(STATUS)
        finally:
            await uplink.close()

    return asyncio.run(once())


def test_a_report_carries_status_and_credential_and_brings_a_hint() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"plan_version": 7, "something": "new"})

    assert report(answer) == 7
    (request,) = seen
    assert (request.method, str(request.url)) == ("PUT", "https://control.test:1/v1/nodes/self/status")
    assert request.headers["authorization"] == "Bearer ncn_x"
    assert msgspec.json.decode(request.content, type=NodeStatus) == STATUS


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (400, "invalid_input", InvalidInput),
        (500, "bug", Unavailable),
        (503, "unavailable", Unavailable),
    ],
)
def test_a_refusal_is_an_error_of_ours(status: int, code: str, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="why"):
        report(lambda _: httpx.Response(status, json={"error": {"code": code, "message": "why"}}))


def test_something_that_is_not_our_control_plane_is_unavailable() -> None:
    for answer in (
        httpx.Response(404, text="<html>"),
        httpx.Response(200, text="<html>"),
        httpx.Response(302, headers={"location": "https://elsewhere.test"}),
    ):
        with pytest.raises(Unavailable):
            report(lambda _, answer=answer: answer)

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unavailable, match="cannot reach"):
        report(broken)


def test_nothing_is_sent_in_the_clear() -> None:
    with pytest.raises(InvalidInput, match="https"):
        ControlUplink("http://control.test", authority_pem=None)
