"""Headers are found under whatever spelling a client gives them, and clients cannot fill the memory with spellings."""

from nearcast.engine.headers import KNOWN_MAX, Names, Spellings


def test_headers_are_found_under_any_spelling() -> None:
    headers = {b"X-Nearcast-Model": b"m", b"CONTENT-LENGTH": b"3", b"x-request-id": b"r", b"accept": b"*/*"}
    names = Spellings().learn(headers)
    assert headers.get(names.model) == b"m"
    assert headers.get(names.content_length) == b"3"
    assert headers.get(names.request_id) == b"r"
    assert headers.get(names.json_length) is None


def test_of_two_spellings_the_last_counts() -> None:
    headers = {b"X-Request-Id": b"one", b"x-request-id": b"two"}
    assert headers.get(Spellings().learn(headers).request_id) == b"two"


def test_what_was_learnt_is_known() -> None:
    spellings = Spellings()
    headers = {b"Host": b"h", b"Expect": b"100-continue"}
    assert spellings.known(tuple(headers)) is None
    learnt = spellings.learn(headers)
    assert spellings.known((b"Host", b"Expect")) is learnt
    assert learnt == Names(expect=b"Expect")


def test_invented_names_do_not_pile_up() -> None:
    spellings = Spellings()
    for number in range(3 * KNOWN_MAX):
        spellings.learn({b"x-%d" % number: b""})
    spellings.learn({b"x" * 60_000: b""})
    known = sum(spellings.known((b"x-%d" % number,)) is not None for number in range(3 * KNOWN_MAX))
    assert 0 < known <= KNOWN_MAX
    assert spellings.known((b"x" * 60_000,)) is None
