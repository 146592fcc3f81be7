"""Small scenarios for tests of the twin: named sites, no files, seconds of virtual time."""

from pathlib import Path
from typing import Any

import yaml

from nearcast.twin.compare import Stage, set_up
from nearcast.twin.files import Loaded, load_data
from nearcast.twin.scenario import read_scenario

CITIES = {
    "berlin": ("DE", 52.5, 13.4),
    "paris": ("FR", 48.9, 2.4),
    "madrid": ("ES", 40.4, -3.7),
    "newyork": ("US", 40.7, -74.0),
    "tokyo": ("JP", 35.7, 139.7),
}


def named(name: str, **more: Any) -> dict[str, Any]:
    country, latitude, longitude = CITIES[name]
    return {"name": name, "country": country, "location": {"latitude": latitude, "longitude": longitude}, **more}


def document(*, edges: tuple[str, ...] = ("berlin", "paris"), **spec: Any) -> dict[str, Any]:
    """A scenario of edge sites with two workers each and one model of 10 ms, and a cloud in New York."""
    whole: dict[str, Any] = {
        "durationS": 20,
        "warmUpS": 2,
        "sites": [
            {"named": [named(name) for name in edges], "node": "box"},
            {"named": [named("newyork")], "node": "box", "nodes": 2, "tier": "cloud", "demand": False},
        ],
        "nodes": {"box": {"workers": 2, "memoryGb": 8, "pricePerHour": 1.0}},
        "models": [model()],
        "demand": {"load": 0.5},
    }
    return {
        "apiVersion": "nearcast.dev/v1alpha1",
        "kind": "Scenario",
        "metadata": {"name": "tiny"},
        "spec": whole | spec,
    }


def model(name: str = "m", ms: float = 10.0, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "targetMs": 100,
        "requestBytes": 1000,
        "answerBytes": 100,
        "service": {"box": [[1, ms]]},
        "room": 8,
        **more,
    }


def loaded(value: dict[str, Any]) -> Loaded:
    return load_data(read_scenario(yaml.safe_dump(value), "tiny.yaml")[0], (Path(),))


def stage(**spec: Any) -> Stage:
    return set_up(loaded(document(**spec)))
