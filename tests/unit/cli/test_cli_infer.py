"""``infer``: words into tensors, answers into words, failures into the error tree."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from nearcast.cli import infer
from nearcast.cli.gateway import Gateway, failure_in, server_timing
from nearcast.cli.tensors import decode, encode, fill, fit
from nearcast.errors import Forbidden, InvalidInput, NearcastError, NotFound, Unavailable
from nearcast.resources.release import Tensor

if TYPE_CHECKING:
    from unit.cli.conftest import Run

X = Tensor(name="x", datatype="FP32", shape=(-1, 2))
IDS = Tensor(name="ids", datatype="INT64", shape=(-1, -1))
WORD = Tensor(name="word", datatype="BYTES", shape=(1,))
HALF = Tensor(name="h", datatype="FP16", shape=(2,))


class Engine:
    """A gateway with one model ``m`` behind it that gives back its input as ``y``, in binary."""

    def __init__(self) -> None:
        self.seen: list[httpx.Request] = []
        self.failure: httpx.Response | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.failure:
            return self.failure
        headers = {
            "x-nearcast-site": "frankfurt",
            "x-nearcast-model": "m@1",
            "x-nearcast-reason": "nearest;attempt=2",
            "server-timing": "queue;dur=0.5, compute;dur=1.5, gateway;dur=0, upstream;dur=90",
        }
        match request.method, request.url.path:
            case "GET", "/v2/models/m":
                entry = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
                return httpx.Response(200, json={"name": "m", "inputs": [entry], "outputs": []})
            case "POST", "/v2/models/m/infer":
                body = request.read()
                if "inference-header-content-length" not in request.headers:
                    output = {"name": "y", "datatype": "INT32", "shape": [2], "data": [1, 2]}
                    return httpx.Response(200, json={"outputs": [output]}, headers=headers)
                head = int(request.headers["inference-header-content-length"])
                asked = json.loads(body[:head])
                assert asked["parameters"] == {"binary_data_output": True}
                output = asked["inputs"][0] | {"name": "y"}
                answer = json.dumps({"model_name": "m", "outputs": [output]}).encode()
                headers["inference-header-content-length"] = str(len(answer))
                return httpx.Response(200, content=answer + body[head:], headers=headers)
            case "POST", "/v1/embeddings":
                texts = json.loads(request.read())["input"]
                data = [{"index": i, "embedding": [0.25] * 12} for i, _ in enumerate(texts)]
                return httpx.Response(200, json={"data": data}, headers=headers)
            case _:
                return httpx.Response(404, json={"error": "no"}, headers={"x-nearcast-error": "model_not_found"})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()
    monkeypatch.setattr(infer, "transport_to", lambda _url: httpx.MockTransport(found))
    return found


def test_infer_shows_the_answer_who_computed_it_why_and_the_times(engine: Engine, run: "Run") -> None:
    done = run("infer", "m", "--gateway", "http://g.test", "--input", "x=[[1, 2.5]]")
    assert done.code == 0, done.err
    assert "FP32[1, 2] 1, 2.5" in done.out
    assert "computed at frankfurt by m@1; why there: nearest" in done.out
    assert "attempt 2" in done.out
    assert "gateway 0.00, upstream 90.0, network 88.0, queue 0.50, compute 1.50" in done.out


def test_infer_for_programs(engine: Engine, run: "Run") -> None:
    done = run("infer", "m", "--gateway", "http://g.test", "-i", "[3, 4]", "-o", "json")
    found = json.loads(done.out)
    assert found["answer"]["outputs"][0]["data"] == [[3.0, 4.0]], "one row became a batch of one"
    assert (found["site"], found["model"], found["reason"]) == ("frankfurt", "m@1", "nearest;attempt=2")
    assert found["timings_ms"].keys() == {"gateway", "upstream", "queue", "compute", "network", "total"}


def test_infer_embeds_text(engine: Engine, run: "Run") -> None:
    done = run("infer", "m", "--gateway", "http://g.test", "--text", "one", "--text", "two")
    assert done.out.count("FP32[12] 0.25, 0.25") == 2


def test_infer_sends_a_request_as_it_is(engine: Engine, run: "Run", tmp_path: Path) -> None:
    request = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    (tmp_path / "r.json").write_text(json.dumps(request))
    done = run("infer", "m", "--gateway", "http://g.test", "--json", str(tmp_path / "r.json"))
    assert done.code == 0, done.err
    assert json.loads(engine.seen[-1].content) == request


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "--json - reads standard input"), ("{", "expected JSON in"), ("[]", 'such as {"inputs": [')],
)
def test_infer_tells_what_is_wrong_with_a_request(
    content: str | None, said: str, engine: Engine, run: "Run", tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    done = run("infer", "m", "--gateway", "http://g.test", "--json", str(tmp_path / "r.json"))
    assert (done.code, engine.seen) == (2, [])
    assert said in done.err


@pytest.mark.parametrize("words", [(), ("--text", "a", "--input", "[1]")])
def test_infer_wants_exactly_one_kind_of_question(words: tuple[str, ...], engine: Engine, run: "Run") -> None:
    done = run("infer", "m", "--gateway", "http://g.test", *words)
    assert done.code == 2
    assert "exactly one" in done.err


def test_infer_through_a_site_that_is_unknown_offers_the_nearest(control: Any, engine: Engine, run: "Run") -> None:
    site = {"name": "frankfurt", "country": "DE", "gateway_url": "http://g.test", "ready": True}
    control.status = {"fleet": "f", "control": {"url": "u"}, "sites": [site]}
    assert "Did you mean 'frankfurt'?" in run("infer", "m", "--site", "frankfort", "--input", "[1, 2]").err
    assert run("infer", "m", "--site", "frankfurt", "--input", "[1, 2]").code == 0
    assert run("infer", "m", "--input", "[1, 2]").code == 0
    site["ready"] = False
    assert run("infer", "m", "--input", "[1, 2]").code == 6


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code"),
    [
        (403, "residency_refused", Forbidden, 3),
        (404, "model_not_found", NotFound, 4),
        (503, "no_place_ready", Unavailable, 6),
        (400, "invalid_tensor", InvalidInput, 2),
        (500, "engine_failure", NearcastError, 1),
    ],
)
def test_failures_of_a_gateway_keep_their_meaning(
    status: int, code: str, kind: type[Exception], exit_code: int, engine: Engine, run: "Run"
) -> None:
    engine.failure = httpx.Response(status, json={"error": "policy home-only"}, headers={"x-nearcast-error": code})
    done = run("infer", "m", "--gateway", "http://g.test", "--input", "[1, 2]")
    assert done.code == exit_code
    assert f"policy home-only ({code})" in done.err
    request = httpx.Request("GET", "http://g.test")
    assert type(failure_in(httpx.Response(status, headers={"x-nearcast-error": code}, request=request))) is kind


def test_a_gateway_that_is_gone_is_named() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    gateway = Gateway("http://g.test", transport=httpx.MockTransport(refuse))
    with pytest.raises(Unavailable, match=r"gateway at http://g\.test does not answer: refused"):
        gateway.signature("m")


def test_a_gateway_whose_authority_is_not_known_is_told_apart() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    gateway = Gateway("https://g.test", transport=httpx.MockTransport(refuse))
    with pytest.raises(Unavailable, match=r"gateway at https://g\.test is not known") as caught:
        gateway.signature("m")
    assert "SSL_CERT_FILE" in caught.value.hint


def test_server_timing_takes_what_it_understands() -> None:
    text = 'gateway;dur=1.5;desc="a", cache, upstream;dur=x, compute; dur=2'
    assert server_timing(text) == {"gateway": 1.5, "compute": 2.0}
    assert server_timing("") == {}


def test_tensors_go_and_come_back() -> None:
    filled = fill(['word=["ä"]', "ids=[[1, 2, 3]]", "h=[0.5, 2]"], [IDS, WORD, HALF])
    assert [each.tensor.name for each in filled] == ["ids", "word", "h"], "in the order of the signature"
    body, head = encode(filled)
    entries = json.loads(body[:head])["inputs"]
    assert entries[1]["data"] == ["ä"]
    assert len(body) - head == 3 * 8 + 2 * 2
    outputs = json.dumps({"outputs": entries}).encode()
    found = decode(outputs + body[head:], len(outputs))["outputs"]
    assert [output["data"] for output in found] == [[[1, 2, 3]], ["ä"], [0.5, 2.0]]


def test_binary_text_is_read() -> None:
    data = b"\x02\x00\x00\x00ab\x00\x00\x00\x00"
    entry = {"name": "t", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"outputs": [entry]}).encode()
    assert decode(head + data, len(head))["outputs"] == [
        {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["ab", ""]}
    ]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["x=[[1, 2, 3]]"], r"expected FP32\[-1, 2\], got the shape \[1, 3\]"),
        (["x=[[1], [2, 3]]"], "expected FP32"),
        (['x=["a", "b"]'], "expected FP32"),
        (["y=[[1, 2]]"], "a name among x"),
        (["x=[[1, 2]]", "x=[[1, 2]]"], "given twice"),
        (["x=nonsense"], "expected JSON"),
        (["x=@/nowhere/x.npy"], "there is no file"),
        ([], "expected a value for x"),
    ],
)
def test_what_does_not_fit_is_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        fill(texts, [X])


def test_an_array_file_keeps_its_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2), dtype=np.float64))
    [filled] = fill([f"@{tmp_path / 'x.npy'}"], [X])
    assert (filled.value.dtype, filled.value.shape) == (np.float32, (3, 2))
    np.save(tmp_path / "ids.npy", np.ones((1, 2), dtype=np.float32))
    with pytest.raises(InvalidInput, match="ids"):
        fill([f"@{tmp_path / 'ids.npy'}"], [IDS])


@pytest.mark.parametrize("body", [b"", b"{}", b'{"outputs": [{"datatype": "FP32", "shape": [2], "data": [1]}]}'])
def test_an_answer_of_another_protocol_is_said_to_be_one(body: bytes) -> None:
    with pytest.raises(NearcastError, match="Open Inference Protocol"):
        decode(body, None)


def test_a_scalar_batch_fits() -> None:
    assert fit(Tensor(name="n", datatype="INT32", shape=(-1,)), 5).tolist() == [5]
