"""TLS for the doors: certificates that can be replaced while connections live, and a handshake that harms nobody.

TLS 1.2 is the least, with no renegotiation, no compression and no tickets, so that there is no key of tickets to guard.
A connection keeps what it was opened with; one that comes after `Credentials.replace` gets what is new.

The first bytes are looked at before TLS sees them: a client that speaks plainly is told so in its own language.
"""

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import attrs
import trio

HANDSHAKE_RECORD: Final = b"\x16"
"""The first byte of a TLS connection (RFC 8446 §5.1)."""
FIRST_BYTES: Final = 65536
BEGIN_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
END_CERTIFICATE: Final = "-----END CERTIFICATE-----"


class HandshakeError(Exception):
    """No TLS connection came about; the argument says why, for a person."""


class CertificateError(Exception):
    """Files that can't be used; the argument says which, and why."""


@attrs.frozen
class Files:
    """Where certificates are, all in PEM."""

    certificate: Path
    """The server's, and those between it and its CA."""
    key: Path
    client_ca: Path | None = None
    """The CA of clients' certificates: each client has to show one. None: none is asked for."""


@attrs.frozen
class Loaded:
    """What the files hold, fit for use."""

    context: ssl.SSLContext
    certificate: str
    """The server's own certificate in PEM, which is no secret."""

    @property
    def asks_for_certificates(self) -> bool:
        """Whether each client has to show a certificate of its own."""
        return self.context.verify_mode is ssl.CERT_REQUIRED


class Credentials:
    """What a server shows, and asks of its clients, from now on."""

    def __init__(self, loaded: Loaded) -> None:
        """Begin with what was loaded first."""
        self.loaded = loaded

    def replace(self, loaded: Loaded) -> None:
        """Show something else to the clients that come from now on."""
        self.loaded = loaded


def load(files: Files) -> Loaded:
    """Read certificates and key. It reads files: not for the event loop.

    Raises:
        CertificateError: they can't be read, or don't fit together.

    """
    context = make_context(ssl.PROTOCOL_TLS_SERVER)
    text = show_certificate(context, files.certificate, files.key)
    if files.client_ca is not None:
        ask_for_certificate(context, files.client_ca)
    begin = text.find(BEGIN_CERTIFICATE)
    end = text.find(END_CERTIFICATE, begin) + len(END_CERTIFICATE)
    return Loaded(context, text[begin:end] + "\n")


def make_context(protocol: int) -> ssl.SSLContext:
    """Return what the connections of one end begin with: `ssl.PROTOCOL_TLS_SERVER`, or `ssl.PROTOCOL_TLS_CLIENT`."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_TICKET
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def show_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> str:
    """Let an end show a certificate; return what is in its file.

    Raises:
        CertificateError: the files can't be read, or don't fit together.

    """
    try:
        text = certificate.read_text()
        key.read_bytes()
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except (OSError, ValueError) as error:
        raise CertificateError(f"{_name(error, f'{certificate} and {key}')}: {explain(error)}") from error
    return text


def ask_for_certificate(context: ssl.SSLContext, ca: Path) -> None:
    """Let an end take only peers that show a certificate of this CA, or of one of those in the file.

    Raises:
        CertificateError: the file can't be read.

    """
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise CertificateError(f"{ca}: {explain(error)}") from error
    context.verify_mode = ssl.CERT_REQUIRED


def _refuse_password() -> str:
    raise ValueError(
        "the key is locked by a password, which nobody could type: store it without one, mode 0600"
    )


def _name(error: Exception, names: str) -> str:
    return str(getattr(error, "filename", None) or names)


def explain(error: BaseException | None) -> str:
    """Return what was wrong with a file or a handshake, in a few words."""
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        words = error.reason or (str(error.args[-1]) if error.args else "")
        words = words.lower().replace("_", " ") or "not in PEM, or not what it should be"
        return f"{words}: {message}" if (message := getattr(error, "verify_message", "")) else words
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) if error is not None else "the peer went away"


def is_end(error: BaseException) -> bool:
    """Return whether an error of a stream means that the peer closed it, if not by the rules of TLS as few do."""
    cause = error.__cause__
    return isinstance(cause, ssl.SSLEOFError) or "UNEXPECTED_EOF" in (getattr(cause, "reason", None) or "")


async def shake_hands(
    stream: trio.abc.Stream, credentials: Credentials, answer_plain: Callable[[bytes], bytes]
) -> trio.abc.Stream:
    """Make a TLS connection of one that a client has opened; return it.

    Args:
        stream: what carries it.
        credentials: what the server shows, and asks of its clients.
        answer_plain: returns what to say to a client that begins with these bytes, which are no TLS.

    Raises:
        HandshakeError: there is no TLS connection.

    """
    try:
        first = bytes(await stream.receive_some(FIRST_BYTES))
        if not first:
            raise HandshakeError("the client left without a word")
        if not first.startswith(HANDSHAKE_RECORD):
            await stream.send_all(answer_plain(first))
            raise HandshakeError("the client speaks no TLS")
        return await open_tls(ReplayStream(first, stream), credentials.loaded.context, server_side=True)
    except trio.BrokenResourceError as error:
        raise HandshakeError(f"the TLS handshake failed: {explain(error.__cause__)}") from error


async def open_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext, *, server_side: bool
) -> "trio.SSLStream[trio.abc.Stream]":
    """Make a TLS connection of a stream. Where the handshake fails, the other end is told why.

    Raises:
        trio.BrokenResourceError: it failed; the cause says why.

    """
    watched = _Context(context)
    # It asks its context for nothing but `wrap_bio`.
    secure = trio.SSLStream(stream, cast("ssl.SSLContext", watched), server_side=server_side)
    failure: trio.BrokenResourceError | None = None
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as error:
        failure = error
    if failure is not None:
        if alert := watched.read_outgoing():
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(alert)
        raise failure
    return secure


class _Context:
    """A context of which is known what it has to send.

    A stream of Trio's whose handshake fails does not send the alert by which the peer learns why.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._outgoing: ssl.MemoryBIO | None = None

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **how: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`."""
        self._outgoing = outgoing
        return self._context.wrap_bio(incoming, outgoing, **how)

    def read_outgoing(self) -> bytes:
        """Return what was not sent."""
        return b"" if self._outgoing is None else self._outgoing.read()


class ReplayStream(trio.abc.Stream):
    """A stream whose first bytes were read already, and are given again."""

    def __init__(self, data: bytes, stream: trio.abc.Stream) -> None:
        """Give `data` first, then what `stream` has."""
        self._data = data
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes; see `trio.abc.ReceiveStream`."""
        if self._data:
            await trio.lowlevel.checkpoint()
            size = max_bytes or len(self._data)
            data, self._data = self._data[:size], self._data[size:]
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; see `trio.abc.SendStream`."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait; see `trio.abc.SendStream`."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close; see `trio.abc.AsyncResource`."""
        await self._stream.aclose()
