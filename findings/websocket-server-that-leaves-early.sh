#!/usr/bin/env bash
# What does a client of trio-websocket hear whose server closes the connection before it has answered the handshake?
#
# Expected of a function that opens a WebSocket: an error, as soon as the other side has closed; that is what an idle
# time-out of a server, or a restart of it in that moment, looks like. Seen (trio-websocket 0.12.2): nothing, for ever.
# `_open_handshake`, which `wrap_client_stream` and `connect_websocket` wait for, is set by an answer alone, and not where
# the task that reads comes to its end.
#
#   server: accepts, reads the request, closes        open_websocket_url: still waits after 5 s
#
# So each opening needs a limit of its own (`trio.fail_after`), though there is no packet that could still come.
# Exit status: 0 as stated or can't be tried here, 1 something has changed.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if ! python3 -m venv "$directory" 2>/dev/null ||
  ! "$directory/bin/pip" install --quiet trio==0.31.0 trio-websocket==0.12.2 2>/dev/null; then
  echo "can't be tried here: it takes python3 with venv, and trio-websocket 0.12.2"
  exit 0
fi
"$directory/bin/python" - <<'PY'
from functools import partial

import trio
import trio_websocket

closed = trio.Event()


async def leave(stream):
    await stream.receive_some()
    await stream.aclose()
    closed.set()


async def main():
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, leave, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        seen = "still waits"
        with trio.move_on_after(5):
            try:
                async with trio_websocket.open_websocket_url(f"ws://127.0.0.1:{port}/"):
                    seen = "is open"
            except Exception as error:
                seen = repr(error)
        print(f"the server has closed: {closed.is_set()}; after 5 s the client {seen}")
        nursery.cancel_scope.cancel()
    return 0 if closed.is_set() and seen == "still waits" else 1


raise SystemExit(trio.run(main))
PY
