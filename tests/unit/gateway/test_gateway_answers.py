"""The gateway's own answers, and that the reference names every one of them."""

import json
from pathlib import Path

import pytest

from nearcast.gateway.render import answers

REFERENCE = Path(__file__).resolve().parents[3] / "docs/reference/headers.md"


@pytest.mark.parametrize("error", [*answers.PUBLIC_ERRORS, *answers.PEER_ERRORS], ids=lambda error: error.code)
def test_each_error_has_both_shapes_its_code_and_a_line_in_the_reference(error):
    openai, plain = answers.mappers([error])
    assert openai["body_format_override"]["json_format"]["error"]["code"] == error.code
    assert plain["body_format_override"]["json_format"] == {"error": error.text, "request_id": "%REQ(x-request-id)%"}
    for mapper in (openai, plain):
        headers = {item["header"]["key"]: item["header"]["value"] for item in mapper["headers_to_add"]}
        assert headers["x-nearcast-error"] == error.code
        assert ("retry-after" in headers) == (error.status == 503)
    assert f"| `{error.code}` |" in REFERENCE.read_text()


def test_errors_are_tried_from_the_special_to_the_general():
    for errors in (answers.PUBLIC_ERRORS, answers.PEER_ERRORS):
        seen = []
        for error in errors:
            for earlier in seen:
                covers = earlier.with_header is None and (
                    earlier.status == error.status or (earlier.or_above and earlier.status <= error.status)
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
