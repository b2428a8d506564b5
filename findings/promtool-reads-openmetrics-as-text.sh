#!/usr/bin/env bash
# Does `promtool check metrics` judge a page of OpenMetrics as it judges the same page in the text format?
#
# Expected, as Prometheus itself scrapes both, and asks for OpenMetrics first: the same verdict. Seen (promtool 2.42.0 of
# Debian 12, prometheus_client 0.26.0), for one counter with a help:
#
#   text 0.0.4     nothing, exit status 0
#   OpenMetrics    "a_total no help text", exit status 3: it reads every page as text, where the help of a counter has to
#                  stand under the name with _total, and in OpenMetrics it stands under the name without
#
# So a page is judged in the text format only, whatever format is scraped.
# Exit status: 0 as stated or can't be tried here, 1 something has changed.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if ! command -v promtool >/dev/null || ! python3 -m venv "$directory" 2>/dev/null ||
  ! "$directory/bin/pip" install --quiet prometheus-client==0.26.0 2>/dev/null; then
  echo "can't be tried here: it takes promtool, python3 with venv, and prometheus-client 0.26.0"
  exit 0
fi
page() {
  "$directory/bin/python" - "$1" <<'PY'
import sys
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import choose_encoder

made = CounterMetricFamily("a", "How often it happened.", 1)
registry = CollectorRegistry()
registry.register(type("Once", (), {"collect": lambda self: [made]})())
sys.stdout.write(choose_encoder(sys.argv[1])[0](registry).decode())
PY
}
promtool --version 2>&1 | head -1
text=0 open=0
page text/plain | promtool check metrics || text=$?
page 'application/openmetrics-text; version=1.0.0' | promtool check metrics || open=$?
echo "text: $text, OpenMetrics: $open"
[ "$text" = 0 ] && [ "$open" != 0 ]
