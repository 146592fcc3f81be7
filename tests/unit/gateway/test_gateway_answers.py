"""The gateway's own answers, and that the reference names every one of them."""

import json
from pathlib import Path

import pytest

from nearcast.gateway.render import answers
from nearcast.resources.wire import GRPC_STATUS_AT_LAST, GrpcStatus

REFERENCE = Path(__file__).resolve().parents[3] / "docs/reference/headers.md"


@pytest.mark.parametrize("error", [*answers.PUBLIC_ERRORS, *answers.PEER_ERRORS], ids=lambda error: error.code)
def test_each_error_has_all_shapes_its_code_and_a_line_in_the_reference(error):
    call, openai, plain = answers.mappers([error], 5)
    text = error.text.replace("{LIMIT}", "5")
    assert call["body_format_override"]["text_format_source"]["inline_string"] == text
    assert openai["body_format_override"]["json_format"]["error"]["code"] == error.code
    assert plain["body_format_override"]["json_format"] == {"error": text, "request_id": "%REQ(x-request-id)%"}
    for mapper in (call, openai, plain):
        headers = {item["header"]["key"]: item["header"]["value"] for item in mapper["headers_to_add"]}
        assert ("grpc-status" in headers) == (mapper is call)
        assert headers["x-nearcast-error"] == error.code
        assert ("retry-after" in headers) == (error.status == 503)
    assert f"| `{error.code}` |" in REFERENCE.read_text()


@pytest.mark.parametrize(
    ("errors", "code", "expected"),
    [
        (answers.PUBLIC_ERRORS, "model_required", GrpcStatus.INVALID_ARGUMENT),
        (answers.PUBLIC_ERRORS, "residency_refused", GrpcStatus.PERMISSION_DENIED),
        (answers.PUBLIC_ERRORS, "model_not_found", GrpcStatus.NOT_FOUND),
        (answers.PUBLIC_ERRORS, "not_found", GrpcStatus.UNIMPLEMENTED),
        (answers.PUBLIC_ERRORS, "body_too_large", GrpcStatus.RESOURCE_EXHAUSTED),
        (answers.PUBLIC_ERRORS, "no_place_ready", GrpcStatus.UNAVAILABLE),
        (answers.PUBLIC_ERRORS, "timeout", GrpcStatus.DEADLINE_EXCEEDED),
    ],
)
def test_what_an_error_is_called_in_grpc(errors, code, expected):
    (error,) = [each for each in errors if each.code == code and not each.no_path]
    headers = {item["header"]["key"]: item["header"]["value"] for item in answers.mappers([error])[0]["headers_to_add"]}
    assert headers["grpc-status"] == str(int(expected))
    assert GRPC_STATUS_AT_LAST not in headers


@pytest.mark.parametrize(
    ("code", "at_last"),
    [
        ("no_place_ready", GrpcStatus.UNAVAILABLE),
        ("caller_not_permitted", GrpcStatus.PERMISSION_DENIED),
        ("place_failed", GrpcStatus.INTERNAL),
    ],
)
def test_what_sends_the_caller_on_is_exhausted_and_carries_what_it_is_where_no_place_is_left(code, at_last):
    # It must not look like a broken peer: Envoy ejects for UNAVAILABLE.
    (error,) = [each for each in answers.PEER_ERRORS if each.code == code]
    headers = {item["header"]["key"]: item["header"]["value"] for item in answers.mappers([error])[0]["headers_to_add"]}
    assert headers["grpc-status"] == str(int(GrpcStatus.RESOURCE_EXHAUSTED))
    assert headers[GRPC_STATUS_AT_LAST] == str(int(at_last))


def test_errors_are_tried_from_the_special_to_the_general():
    for errors in (answers.PUBLIC_ERRORS, answers.PEER_ERRORS):
        seen = []
        for error in errors:
            for earlier in seen:
                covers = (
                    earlier.with_header is None
                    and not earlier.no_path
                    and (earlier.status == error.status or (earlier.or_above and earlier.status <= error.status))
                )
                assert not covers, f"{error.code} is never reached behind {earlier.code}"
            seen.append(error)


def test_discovery_is_json_for_get_and_head():
    for route in answers.discovery(["m"]):
        json.loads(route["direct_response"]["body"]["inline_string"])
        (method,) = route["match"]["headers"]
        assert method["string_match"]["safe_regex"]["regex"] == "GET|HEAD"


def test_literal_text_survives_the_format():
    assert answers.literal("100% of %REQ(x)%") == "100%% of %%REQ(x)%%"
