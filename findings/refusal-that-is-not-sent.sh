#!/usr/bin/env bash
# What does a TLS client hear whose certificate a server refuses, if the server is a trio.SSLStream?
#
# Expected: an alert that says why, as ssl itself sends one. Seen (trio 0.35.0, trustme 1.2.1, TLS 1.3): `ssl` makes the
# alert, and it lies ready to be sent; but `do_handshake` of the stream raises, and nothing of it ever leaves. So the
# client is told nothing but that the connection ended. And it learns even that late: with TLS 1.3 its own handshake
# has succeeded by then, and only its first read fails.
#
#   by ssl alone        the client's handshake: done; its first read: TLSV13_ALERT_CERTIFICATE_REQUIRED
#   by trio.SSLStream   the client's handshake: done; its first read: the end
#
# Whoever wants clients to know why must look into the outgoing bytes after a failed handshake, and send what is there.
# Exit status: 0 as stated or can't be tried here, 1 something has changed.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if ! python3 -m venv "$directory" 2>/dev/null ||
  ! "$directory/bin/pip" install --quiet trio==0.35.0 trustme==1.2.1 2>/dev/null; then
  echo "can't be tried here: it takes python3 with venv, trio 0.35.0 and trustme 1.2.1"
  exit 0
fi
"$directory/bin/python" - <<'PY'
import socket
import ssl
import threading

import trio
import trustme

ca = trustme.CA()


def contexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    ca.configure_trust(client)
    return server, client


def told(sock, context):
    """Return how far a client without a certificate came, and what it heard."""
    try:
        stream = context.wrap_socket(sock, server_hostname="localhost")
    except OSError as error:
        return "failed", type(error).__name__
    try:
        data = stream.recv(10)
    except OSError as error:
        return "done", getattr(error, "reason", None) or type(error).__name__
    return "done", "the end" if not data else repr(data)


def by_ssl_alone():
    server, client = contexts()
    near, far = socket.socketpair()

    def serve():
        try:
            server.wrap_socket(far, server_side=True)
        except ssl.SSLError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    found = told(near, client)
    thread.join()
    return found


async def by_trio():
    server, client = contexts()
    near, far = socket.socketpair()

    async def serve():
        raw = trio.SocketStream(trio.socket.from_stdlib_socket(far))
        stream = trio.SSLStream(raw, server, server_side=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            await raw.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        near.settimeout(10)
        return await trio.to_thread.run_sync(told, near, client)


alone, with_trio = by_ssl_alone(), trio.run(by_trio)
print(f"by ssl alone        the client's handshake: {alone[0]}; its first read: {alone[1]}")
print(f"by trio.SSLStream   the client's handshake: {with_trio[0]}; its first read: {with_trio[1]}")
is_so = alone[0] == with_trio[0] == "done" and "CERTIFICATE_REQUIRED" in alone[1].upper()
raise SystemExit(0 if is_so and "CERTIFICATE" not in with_trio[1].upper() else 1)
PY
