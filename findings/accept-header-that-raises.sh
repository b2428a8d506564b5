#!/usr/bin/env bash
# What does prometheus_client answer to a scraper whose Accept header names a version that is no number?
#
# Expected of a function that chooses a format by a header that others send: the format that everybody can read, as for
# each other wish that it can't fulfil. Seen (prometheus_client 0.26.0):
#
#   Accept: application/openmetrics-text; version=abc      TypeError: '>=' not supported between 'str' and 'int'
#   Accept: application/openmetrics-text; version=2.0.0    "version=2.0.0" in the content type, above a page of 1.0.0
#
# So a handler that gives the header to `choose_encoder` unseen fails by one line of a client, and a version that does
# not exist yet is promised to whoever asks for it.
# Exit status: 0 as stated or can't be tried here, 1 something has changed.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if ! python3 -m venv "$directory" 2>/dev/null ||
  ! "$directory/bin/pip" install --quiet prometheus-client==0.26.0 2>/dev/null; then
  echo "can't be tried here: it takes python3 with venv, and prometheus-client 0.26.0"
  exit 0
fi
"$directory/bin/python" - <<'PY'
from prometheus_client.exposition import choose_encoder

seen = {}
for version in ("abc", "2.0.0"):
    try:
        seen[version] = choose_encoder(f"application/openmetrics-text; version={version}")[1]
    except TypeError as error:
        seen[version] = repr(error)
    print(f"version={version:6} {seen[version]}")
raise SystemExit(0 if "TypeError" in seen["abc"] and "version=2.0.0" in seen["2.0.0"] else 1)
PY
