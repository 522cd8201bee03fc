#!/usr/bin/env bash
# Label a few nodes, purge by label, look at what became of it.
# EDGEPLANE_URL, EDGEPLANE_USERNAME and EDGEPLANE_PASSWORD say where and who; AGENT_PORT where agents listen.
set -euo pipefail

port="${AGENT_PORT:-9090}"
for number in 1 2 3 4; do
  region=eu
  [ "$number" -le 3 ] || region=us
  edgeplane node add "cache-$number" 127.0.0.1 --port "$port" --label "region=$region" >/dev/null
done
edgeplane node list --label region=eu

echo "--- purge the caches of one region, two at a time"
edgeplane purge https://example.com/logo.png --label region=eu \
  --max-concurrency 2 --max-failures 1 --request-id logo-2026-01-23 --wait

echo "--- asked for again under the same request id, it is the same operation"
edgeplane purge https://example.com/logo.png --label region=eu \
  --max-concurrency 2 --max-failures 1 --request-id logo-2026-01-23 >/dev/null
edgeplane op list
