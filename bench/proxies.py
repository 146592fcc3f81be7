"""Other gateways to measure: nginx from Debian, and the AI gateways of PyPI, each in an environment of its own."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.envoys import Pair
from bench.peers import environment
from bench.ports import free_port
from bench.running import Running, server
from bench.upstream import MODEL

ENVIRONMENTS = {"sglang-router": "sglang-router", "vllm-router": "vllm-router", "litellm": "litellm[proxy]"}
"""Name of the environment -> what is installed there."""


@contextmanager
def nginx(folder: Path, engine: Path, tls: Pair | None = None) -> Iterator[Running]:
    """nginx with one worker, connections to the engine kept, bodies in memory, no access log."""
    port, home = free_port(), folder / ("nginx-tls" if tls else "nginx")
    home.mkdir()
    certificate = f"ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key};" if tls else ""
    user = "user root;" if os.geteuid() == 0 else ""  # the sockets of engines are for their owner
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (home / "nginx.conf").write_text(f"""
daemon off; {user} worker_processes 1; pid {home}/pid; error_log {home}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; {" ".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)}
  client_max_body_size 64m; client_body_buffer_size 512k; keepalive_requests 100000000;
  ssl_protocols TLSv1.2 TLSv1.3;
  upstream engine {{ server unix:{engine}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}{" ssl" if tls else ""}; {certificate}
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert found is not None
    with server([found, "-p", str(home), "-c", str(home / "nginx.conf")], port, home / "log") as running:
        yield running


def has_nginx() -> bool:
    """Whether it is installed."""
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is not None


@contextmanager
def sglang_router(folder: Path, engine_port: int) -> Iterator[Running]:
    """sglang-router, round robin over one worker."""
    home, port = environment("sglang-router", ENVIRONMENTS["sglang-router"]), free_port()
    command = [str(home / "bin/python"), "-m", "sglang_router.launch_router", "--policy", "round_robin"]
    command += ["--worker-urls", f"http://127.0.0.1:{engine_port}", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", str(free_port()), "--log-level", "error"]
    with server(command, port, folder / "sglang-router.log") as running:
        yield running


@contextmanager
def vllm_router(folder: Path, engine_port: int) -> Iterator[Running]:
    """vllm-router, round robin over one worker."""
    home, port = environment("vllm-router", ENVIRONMENTS["vllm-router"]), free_port()
    command = [str(home / "bin/vllm-router"), "--policy", "round_robin"]
    command += ["--worker-urls", f"http://127.0.0.1:{engine_port}", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", str(free_port()), "--log-level", "error"]
    with server(command, port, folder / "vllm-router.log") as running:
        yield running


@contextmanager
def litellm(folder: Path, engine_port: int) -> Iterator[Running]:
    """LiteLLM's proxy with one worker and one model; without keys, database or callbacks."""
    home, port = environment("litellm", ENVIRONMENTS["litellm"]), free_port()
    parameters = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{engine_port}/v1", "api_key": "none"}
    config = folder / "litellm.json"  # JSON is YAML
    models = [{"model_name": MODEL, "litellm_params": parameters}]
    # It does not start without a key unless it is told so, and keys cost time: on loopback nobody needs one.
    general = {"dangerously_permit_weak_or_unset_master_key": True}
    config.write_text(json.dumps({"model_list": models, "general_settings": general}))
    command = [str(home / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    with server(command, port, folder / "litellm.log", timeout_s=120.0) as running:
        yield running


ROUTERS: dict[str, Callable[[Path, int], AbstractContextManager[Running]]] = {
    "sglang-router": sglang_router,
    "vllm-router": vllm_router,
    "LiteLLM": litellm,
}
