"""How a client knows its server over TLS, and is known to it."""

import socket
import ssl
from pathlib import Path
from typing import Final, Self

import attrs

WORDS: Final = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not what was expected",
    "WRONG_VERSION_NUMBER": "it speaks no TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of the client: give --client-cert and --client-key",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the handshake; it may want a certificate of the client",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of the client's certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it wants a newer version of TLS",
}
"""What the reasons of the library mean, as far as somebody can do something about them."""


def explain_tls(error: Exception) -> str:
    """Return what went wrong with TLS, in a few words."""
    assert isinstance(error, ssl.SSLError), error
    words = WORDS.get(error.reason or "", (error.reason or str(error)).lower().replace("_", " "))
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return f"{words}: {error.verify_message}"
    return words


@attrs.frozen
class Tls:
    """What is expected of a server, and shown to it.

    Use `of_files` or `of_certificate`.
    """

    context: ssl.SSLContext
    server_name: str | None = None
    """The name that its certificate must have; None: the host that is asked for."""

    @classmethod
    def of_files(
        cls,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Know a server by the CA of its certificate.

        Args:
            ca: a file with it in PEM; None: those that the system trusts.
            certificate: a file with that of the client; None: it shows none.
            key: a file with its key; None: it stands in the file of the certificate.
            server_name: the name that its certificate must have; None: the host that is asked for.

        Raises:
            OSError: a file can't be read, or holds something else.

        """
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=lambda: "")
        return cls(context, server_name)

    @classmethod
    def of_certificate(cls, text: str) -> Self:
        """Know a server by its very certificate, in PEM: whatever name stands in it, and whoever signed it.

        Raises:
            ValueError: it is no certificate.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        # The certificate is trusted as it is, and not for what is above it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=text)
        return cls(context)

    def wrap(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        """Shake hands over a connected socket, which is closed if that fails.

        Raises:
            OSError: the server is not who it should be, or does not take us.

        """
        try:
            return self.context.wrap_socket(sock, server_hostname=self.server_name or host)
        except BaseException:
            sock.close()
            raise
