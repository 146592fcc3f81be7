"""Join tokens: what they carry, and that nothing of them leaks."""

import pytest

from nearcast.errors import InvalidInput
from nearcast.resources.join import TOKEN_PREFIX, JoinToken, decode_token, encode_token

TOKEN = JoinToken(
    id="0123456789abcdef",
    secret="a-secret-that-nobody-may-see",
    site="frankfurt",
    fleet="fleet.example",
    ca_sha256="aa" * 32,
    releases_root_sha256="bb" * 32,
    plans_root_sha256="cc" * 32,
    expires_at="2026-11-21T00:00:00.000000Z",
)


def test_a_token_comes_back_whole_from_its_text() -> None:
    text = encode_token(TOKEN)
    assert text.startswith(TOKEN_PREFIX)
    assert "=" not in text
    assert decode_token(f"  {text}\n") == TOKEN


def test_its_representation_hides_the_secret() -> None:
    assert TOKEN.secret not in repr(TOKEN)
    assert TOKEN.secret not in str([TOKEN])


@pytest.mark.parametrize("damage", ["", "x", "ncj_", "ncj_é", "ncj_" + "A" * 5000, "ncj_e30", encode_token(TOKEN)[:-7]])
def test_damaged_tokens_are_refused_without_repeating_them(damage: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_token(damage)
    if len(damage) > 10:
        assert damage not in caught.value.message
    assert caught.value.hint


def test_a_token_of_another_version_is_refused() -> None:
    with pytest.raises(InvalidInput, match="version 2"):
        decode_token(encode_token(JoinToken(**{**_fields(), "v": 2})))


def _fields() -> dict[str, object]:
    return {name: getattr(TOKEN, name) for name in TOKEN.__struct_fields__}
