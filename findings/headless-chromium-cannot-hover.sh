#!/usr/bin/env bash
# Does a headless Chromium say that it has a mouse?
#
# Expected by who drives it with a mouse (WebDriver moves, clicks, and `:hover` matches): `(hover: hover)` and
# `(pointer: fine)` as in a window on a desk. Seen (Debian's chromium 156, on a machine without input devices): both
# are false, and so is `(any-hover: hover)`. A rule inside `@media (hover: hover)` is never in force there, so tests and
# pictures show a page as it is on a phone, whatever the size of the window. Rules that use `:hover` alone are seen.
#
# Exit status: 0 as stated or can't be tried here, 1 something has changed.
set -euo pipefail

if ! command -v chromium >/dev/null; then
  echo "can't be tried here: it takes chromium"
  exit 0
fi
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
page="data:text/html,<p id=p></p><script>document.getElementById('p').textContent = ['(hover: hover)', '(any-hover: hover)',
 '(pointer: fine)'].map((query) => matchMedia(query).matches).join(' ')</script>"
seen=$(chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --user-data-dir="$profile" --dump-dom "$page" 2>/dev/null |
  grep -o '<p id="p">[a-z ]*' | cut -d '>' -f 2)
echo "hover, any-hover, fine pointer: $seen"
[ "$seen" = "false false false" ]
