"""Envoy's counters as metrics of ours: the class of a code, of a gRPC call, too."""

import pytest

from nearcast.gateway import metrics

COUNTER = "# TYPE envoy_nearcast_public_requests counter\nenvoy_nearcast_public_requests{%s} 2\n"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ('public="m|s|200|-|local;attempt=1"', "2xx"),
        ('public="m|s|503|-|local;attempt=1"', "5xx"),
        ('public="m|s|200|0|local;attempt=1"', "2xx"),
        ('public="m|s|200|3|local;attempt=1"', "4xx"),
        ('public="m|s|200|8|local;attempt=1"', "5xx"),
        ('public="m|s|200|14|local;attempt=1"', "5xx"),
    ],
)
def test_a_failed_call_is_no_success(labels: str, expected: str) -> None:
    told = {each.name: each for each in metrics.families(COUNTER % labels, {}, "here")}
    samples = told["nearcast_gateway_requests"].samples
    assert [(each.labels["code"], each.value) for each in samples] == [(expected, 2.0)]


def test_one_label_of_envoy_is_many_of_ours_and_what_a_request_has_none_of_is_empty() -> None:
    told = {each.name: each for each in metrics.families(COUNTER % 'public="-|-|404|-|-"', {}, "here")}
    assert [each.labels for each in told["nearcast_gateway_requests"].samples] == [
        {"model": "", "reason": "", "code": "4xx"}
    ]
    assert [each.labels for each in told["nearcast_gateway_answers"].samples] == [
        {"site": "", "reason": "", "code": "4xx"}
    ]
