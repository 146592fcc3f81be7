"""What Envoy 1.40 tells of a minute of requests, and what of it is demand."""

from nearcast.gateway.demand import Asked, asked

SAMPLE = """\
# TYPE envoy_nearcast_public_received_bytes counter
envoy_nearcast_public_received_bytes{model="adder"} 656
# TYPE envoy_nearcast_public_requests counter
envoy_nearcast_public_requests{public="-|-|200|-|-"} 1
envoy_nearcast_public_requests{public="-|-|404|-|-"} 3
envoy_nearcast_public_requests{public="adder|frankfurt|200|-|local;attempt=1"} 60
envoy_nearcast_public_requests{public="adder|frankfurt|400|-|local;attempt=1"} 5
envoy_nearcast_public_requests{public="adder|ashburn|200|-|spill;attempt=3"} 7
envoy_nearcast_public_requests{public="adder|ashburn|503|-|spill;attempt=3"} 2
envoy_nearcast_public_requests{public="nowhere|-|503|-|-"} 4
# TYPE envoy_nearcast_public_sent_bytes counter
envoy_nearcast_public_sent_bytes{model="adder"} 992
# TYPE envoy_nearcast_public_sized counter
envoy_nearcast_public_sized{model="adder"} 8
"""
REQUEST = 'envoy_nearcast_public_requests{public="m|s|%s|%s|-"} 1\n'


def test_answers_and_refusals_for_want_of_room_are_demand_and_errors_of_callers_are_not() -> None:
    assert asked(SAMPLE) == {
        "adder": Asked(requests=69, sized=8, received_bytes=656, sent_bytes=992),
        "nowhere": Asked(requests=4),
    }


def test_what_a_call_ended_with_counts_as_the_same_status_would() -> None:
    demand = {"0", "8", "14", "13", "4"}
    for call in ("0", "3", "5", "8", "12", "13", "14"):
        assert ("m" in asked(REQUEST % (200, call))) == (call in demand), call


def test_too_many_requests_and_callers_that_gave_up_wanted_an_answer() -> None:
    for code in ("429", "0", "500", "503", "504"):
        assert asked(REQUEST % (code, "")) == {"m": Asked(requests=1)}, code
    for code in ("400", "404", "413", "415"):
        assert asked(REQUEST % (code, "")) == {}, code


def test_what_peers_send_is_not_what_clients_ask() -> None:
    assert asked('envoy_nearcast_peer_requests{peer="m|200|-"} 9\n') == {}


def test_a_label_may_hold_what_closes_it() -> None:
    line = 'envoy_nearcast_public_requests{public="m|s|200|-|a} \\"b\\",|c"} 3\n'
    assert asked(line) == {"m": Asked(requests=3)}


def test_nothing_is_nothing() -> None:
    assert asked("") == {}
