"""Envoy's statistics read as verdicts, and its log as errors."""

import pytest

from nearcast.errors import Bug, InvalidInput
from nearcast.gateway import acceptance
from nearcast.gateway.render.document import CLUSTER_TYPE, CLUSTERS_FILE, Document, routes_file

DOCUMENT = Document(CLUSTER_TYPE, ({"name": "a"},))


def test_a_document_is_confirmed_by_its_version_and_by_nothing_else():
    documents = {CLUSTERS_FILE: DOCUMENT, routes_file("peer"): DOCUMENT}
    stats = {"cluster_manager.cds.version_text": DOCUMENT.version, "http.peer.rds.peer.version_text": "older"}
    assert acceptance.unconfirmed(documents, stats) == ["rds_peer.json"]
    assert acceptance.unconfirmed(documents, {}) == ["cds.json", "rds_peer.json"]


@pytest.mark.parametrize("word", ["update_rejected", "update_failure"])
def test_a_refusal_is_one_more_than_before(word):
    before = {f"cluster_manager.cds.{word}": "1"}
    assert acceptance.refused([CLUSTERS_FILE], before, before) == []
    assert acceptance.refused([CLUSTERS_FILE], {f"cluster_manager.cds.{word}": "2"}, before) == [CLUSTERS_FILE]
    assert acceptance.refused([routes_file("peer")], {f"cluster_manager.cds.{word}": "2"}, before) == []


def test_warm_is_when_nothing_warms_and_envoy_said_so():
    warm = {"cluster_manager.warming_clusters": "0", "listener_manager.total_listeners_warming": "0"}
    assert acceptance.is_warm(warm)
    assert not acceptance.is_warm(warm | {"cluster_manager.warming_clusters": "1"})
    assert not acceptance.is_warm({})


def test_a_taken_address_is_the_operators_and_all_else_is_ours():
    taken = acceptance.refusal(
        "Envoy refused lds.json", ["error adding listener: cannot bind '127.0.0.1:80': Address already in use"]
    )
    assert isinstance(taken, InvalidInput)
    assert "127.0.0.1:80" in taken.message
    assert taken.hint
    assert isinstance(acceptance.refusal("Envoy refused cds.json", ["no such field: 'tipe'"]), Bug)
    assert "nothing" in acceptance.refusal("Envoy ended", []).message
