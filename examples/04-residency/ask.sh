#!/bin/sh
# Put the same question to each gateway: status, place and reason (or the refusal), and the body.
#   sh ask.sh GATEWAY_URL…
set -eu
[ $# -gt 0 ] || { echo "usage: ask.sh GATEWAY_URL…" >&2; exit 2; }
for gateway in "$@"; do
  echo "== $gateway"
  curl -sS -D - "$gateway/v2/models/outlook/infer" -H 'content-type: application/json' -d '{"inputs": [{
    "name": "features", "shape": [1, 10], "datatype": "FP32", "data": [
      0.0381, 0.0507, 0.0617, 0.0219, -0.0442, -0.0348, -0.0434, -0.0026, 0.0199, -0.0176]}]}' \
    | tr -d '\r' | grep -iE '^(HTTP/|x-nearcast-(site|reason|error):|\{)'
done
