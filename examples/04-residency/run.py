"""Check example 04 against a running fleet: a policy decides before any cost is looked at, and never detours silently.

    python run.py

The model is the regressor of example 03, released under the name `outlook`.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import Fleet, expect, until

HERE = Path(__file__).resolve().parent
MODEL_SCRIPT = HERE.parent / "03-scikit-learn" / "model.py"
FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class Answer:
    """What `ask.sh` showed of one gateway's answer."""

    status: int
    site: str
    error: str
    body: dict[str, Any]


def ask(gateway_url: str) -> Answer:
    """The answer of one gateway, by curl."""
    done = subprocess.run(
        ["/bin/sh", str(HERE / "ask.sh"), gateway_url], capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stdout.splitlines()
    expect(done.returncode == 0 and len(lines) >= 2, f"ask.sh {gateway_url} failed:\n{done.stdout}{done.stderr}")
    headers = dict(line.split(": ", 1) for line in (line.lower() for line in lines) if line.startswith("x-nearcast-"))
    body: dict[str, Any] = next((json.loads(line) for line in lines if line.startswith("{")), {})
    status = next(int(line.split()[1]) for line in lines if line.startswith("HTTP/"))
    return Answer(status, headers.get("x-nearcast-site", ""), headers.get("x-nearcast-error", ""), body)


def expect_answers(gateways: dict[str, str], wanted: dict[str, str | int], when: str) -> None:
    """Wait until each gateway answers as `wanted` says: from a site (its name), or with a status."""

    def seen() -> dict[str, str | int]:
        answers = {name: ask(gateways[name]) for name in wanted}
        return {name: answer.site if answer.status == 200 else answer.status for name, answer in answers.items()}

    until(lambda: seen() == wanted, f"{when}: expected {wanted}, and last got {seen()}")
    print(f"  {when}: {wanted}")


def main() -> None:
    """Three acts: no policy, policy without a place in the EU, policy with one."""
    fleet = Fleet()
    gateways = fleet.gateways()
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, str(MODEL_SCRIPT), scratch], check=True, timeout=120, stdout=subprocess.DEVNULL)
        fleet.push("outlook", "1", Path(scratch) / "diabetes")
    try:
        fleet.apply(HERE / "ashburn.yaml", "outlook")
        everyone = {"frankfurt": "ashburn", "ashburn": "ashburn", "singapore": "ashburn"}
        expect_answers(gateways, dict(everyone), "no policy")

        fleet.apply(HERE / "policy.yaml")
        fleet.cli("wait", "policy/eu-stays-in-eu", "--for", "ready")
        expect_answers(gateways, everyone | {"frankfurt": FORBIDDEN}, "policy, no place in the EU")
        refusal = ask(gateways["frankfurt"])
        expect(refusal.error == "residency_refused", f"expected the code residency_refused, got {refusal}")
        expect("eu-stays-in-eu" in str(refusal.body), f"expected a refusal that names the policy, got {refusal.body}")
        expect(
            "eu-stays-in-eu" in fleet.cli("route", "explain", "outlook", "--site", "frankfurt", "-o", "json"), "explain"
        )

        fleet.apply(HERE / "ashburn-and-frankfurt.yaml", "outlook")
        expect_answers(gateways, {"frankfurt": "frankfurt", "ashburn": "ashburn"}, "policy, a place in the EU")
    finally:
        fleet.delete("policy/eu-stays-in-eu", "deployment/outlook")
    print("04-residency: ok")


if __name__ == "__main__":
    main()
