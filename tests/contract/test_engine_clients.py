"""Clients that we did not write, against a real engine: tritonclient (sync and asyncio) and openai."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from contract import engine_models as models
from contract.engine_process import Engine, on_tcp, running_engine
from nearcast.resources import wire
from nearcast.resources.release import ReleaseManifest


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture(scope="module")
def everything(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> ReleaseManifest:
    folder = tmp_path_factory.mktemp("everything")
    manifest = models.everything(folder)
    engine.load(folder, manifest).raise_for_status()
    return manifest


@pytest.fixture(scope="module")
def words(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> ReleaseManifest:
    folder = tmp_path_factory.mktemp("words")
    manifest = models.embedder(folder)
    engine.load(folder, manifest).raise_for_status()
    return manifest


def sample(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["a", "öß"], ["", "\u4e16"]], dtype=object)
    dtype = {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}.get(datatype)
    return np.array([[1, 0], [3, 5]]).astype(dtype or np.dtype(datatype.lower()))


def wanted_and_given(manifest: ReleaseManifest, *, binary: bool) -> tuple[list, list]:
    inputs, outputs = [], []
    for one, other in zip(manifest.signature.inputs, manifest.signature.outputs, strict=True):
        given = triton.InferInput(one.name, [2, 2], one.datatype)
        # tritonclient itself refuses FP16 in JSON
        given.set_data_from_numpy(sample(one.datatype), binary_data=binary or one.datatype == "FP16")
        inputs.append(given)
        outputs.append(triton.InferRequestedOutput(other.name, binary_data=binary))
    return inputs, outputs


def check(manifest: ReleaseManifest, result: triton.InferResult) -> None:
    for one, other in zip(manifest.signature.inputs, manifest.signature.outputs, strict=True):
        got, expected = result.as_numpy(other.name), sample(one.datatype)
        if one.datatype == "BYTES":
            got = np.array([e.decode() if isinstance(e, bytes) else e for e in got.ravel()]).reshape(got.shape)
        assert np.array_equal(got, expected), one.datatype


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient(engine: Engine, everything: ReleaseManifest, binary: bool) -> None:
    with on_tcp(engine.socket_of(everything)) as port, triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("everything")
        assert client.is_model_ready("everything", "1")
        assert not client.is_model_ready("everything", "2")
        assert client.get_server_metadata()["name"] == "nearcast"
        assert len(client.get_model_metadata("everything")["inputs"]) == len(everything.signature.inputs)
        inputs, outputs = wanted_and_given(everything, binary=binary)
        check(everything, client.infer("everything", inputs, outputs=outputs, request_id="r1"))
        result = client.infer("everything", inputs, model_version="1")  # all outputs, binary by the client's default
        assert result.get_response()["model_version"] == "1"
        check(everything, result)
        with pytest.raises(InferenceServerException, match="takes the inputs"):
            client.infer("everything", inputs[:1])


def test_tritonclient_asyncio(engine: Engine, everything: ReleaseManifest) -> None:
    async def ask(port: int) -> None:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert await client.is_model_ready("everything")
            inputs, outputs = wanted_and_given(everything, binary=True)
            results = await asyncio.gather(*(client.infer("everything", inputs, outputs=outputs) for _ in range(20)))
            for result in results:
                check(everything, result)

    with on_tcp(engine.socket_of(everything)) as port:
        asyncio.run(ask(port))


@pytest.fixture
def client(engine: Engine, words: ReleaseManifest) -> Iterator[openai.OpenAI]:
    transport = httpx.HTTPTransport(uds=str(engine.socket_of(words)))
    with httpx.Client(transport=transport) as http:
        yield openai.OpenAI(base_url="http://engine/v1", api_key="none", http_client=http, max_retries=0)


def test_openai_one_text(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="words", input="hello edge")
    assert np.allclose(answer.data[0].embedding, models.embedding_of("hello edge"), atol=1e-6)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 4)
    assert answer.model == "words"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openai_many_texts_of_different_lengths(client: openai.OpenAI, encoding: str) -> None:
    texts = [" ".join(models.WORDS[4 + (n + k) % 5] for k in range(1 + n % 13)) for n in range(300)]
    answer = client.embeddings.create(model="words", input=texts, encoding_format=encoding)  # type: ignore[arg-type]
    for entry, text in zip(answer.data, texts, strict=True):
        got = entry.embedding
        if isinstance(got, str):
            got = np.frombuffer(base64.b64decode(got), "<f4").tolist()
        assert np.allclose(got, models.embedding_of(text), atol=1e-5)
    assert [entry.index for entry in answer.data] == list(range(300))


def test_openai_tokens(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="words", input=[2, 4, 3])
    assert np.allclose(one.data[0].embedding, models.embedding_of("hello"), atol=1e-6)
    two = client.embeddings.create(model="words", input=[[2, 4, 3], [2, 5, 6, 3]])
    assert np.allclose(two.data[1].embedding, models.embedding_of("edge world"), atol=1e-6)
    assert two.usage.prompt_tokens == 7


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"input": " ".join(["hello"] * 15)}, wire.CODE_CONTEXT_LENGTH),  # 17 tokens with [CLS] and [SEP]; 16 fit
        ({"input": [2, 99]}, wire.CODE_INVALID_REQUEST),
        ({"input": ""}, wire.CODE_INVALID_REQUEST),
        ({"input": "hello", "dimensions": 4}, wire.CODE_INVALID_REQUEST),
        ({"input": "hello", "model": "other"}, wire.CODE_MODEL_MISMATCH),
    ],
)
def test_openai_refusals(client: openai.OpenAI, fields: dict, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**({"model": "words"} | fields))
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"


def test_longest_input_that_fits(client: openai.OpenAI) -> None:
    text = " ".join(["hello"] * 14)
    answer = client.embeddings.create(model="words", input=text)
    assert np.allclose(answer.data[0].embedding, models.embedding_of(text), atol=1e-5)


def test_a_long_body_is_tokenised_beside_the_loop(client: openai.OpenAI) -> None:
    texts = ["hello edge world"] * 1000
    answer = client.embeddings.create(model="words", input=texts)
    assert answer.usage.prompt_tokens == 5000
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="words", input=[*texts, "hello " * 100])
    assert caught.value.code == wire.CODE_CONTEXT_LENGTH


def test_fewer_dimensions_where_the_release_says_that_they_mean_something(engine: Engine, tmp_path: Path) -> None:
    manifest = models.embedder(tmp_path, labels={"matryoshka": "true"}, model="nested")
    engine.load(tmp_path, manifest).raise_for_status()
    with engine.model(manifest) as client:
        asked = {"model": "nested", "input": "hello", "dimensions": 4}
        got = client.post("/v1/embeddings", json=asked).json()["data"][0]["embedding"]
        full = models.embedding_of("hello")[:4]
        assert np.allclose(got, full / np.linalg.norm(full), atol=1e-6)
        assert client.post("/v1/embeddings", json=asked | {"dimensions": 9}).status_code == 400


def test_token_models_answer_inference_too(engine: Engine, words: ReleaseManifest) -> None:
    def tensor(name: str, *shape: int) -> dict:
        return {"name": name, "datatype": "INT64", "shape": list(shape), "data": [1] * int(np.prod(shape))}

    with engine.model(words) as client:
        good = {"inputs": [tensor("input_ids", 2, 3), tensor("attention_mask", 2, 3)]}
        assert client.post("/v2/models/words/infer", json=good).json()["outputs"][0]["shape"] == [2, 8]
        for shape in ((2, 4), (1, 3)):
            bad = {"inputs": [tensor("input_ids", 2, 3), tensor("attention_mask", *shape)]}
            answer = client.post("/v2/models/words/infer", json=bad)
            assert (answer.status_code, answer.headers[wire.ERROR]) == (400, wire.CODE_INVALID_TENSOR)
