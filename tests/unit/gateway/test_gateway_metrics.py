"""Envoy's counters as metrics of ours: the class of a code, of a gRPC call, too."""

import pytest

from nearcast.gateway import metrics

COUNTER = "# TYPE envoy_nearcast_public_requests counter\nenvoy_nearcast_public_requests{%s} 2\n"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ('model="m",code="200",site="s",reason="local;attempt=1"', "2xx"),
        ('model="m",code="503",call="-",site="s",reason="local;attempt=1"', "5xx"),
        ('model="m",code="200",call="0",site="s",reason="local;attempt=1"', "2xx"),
        ('model="m",code="200",call="3",site="s",reason="local;attempt=1"', "4xx"),
        ('model="m",code="200",call="8",site="s",reason="local;attempt=1"', "5xx"),
        ('model="m",code="200",call="14",site="s",reason="local;attempt=1"', "5xx"),
    ],
)
def test_a_failed_call_is_no_success(labels: str, expected: str) -> None:
    told = {each.name: each for each in metrics.families(COUNTER % labels, {}, "here")}
    samples = told["nearcast_gateway_requests"].samples
    assert [(each.labels["code"], each.value) for each in samples] == [(expected, 2.0)]
