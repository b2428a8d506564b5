"""The way to a server, as commands are told it: how to know it, and what to show it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Parameter

from trio_kv.cli.errors import UsageError
from trio_kv.cli.parsing import option

if TYPE_CHECKING:
    from trio_kv.client.tls import Tls

TOKEN_VARIABLE = "TRIO_KV_TOKEN"  # noqa: S105 - the name of a variable
"""A token itself. There is no option for it: what is typed can be seen by all who list processes."""


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class TlsOptions:
    """How to know a server by TLS, and be known to it."""

    ca: Annotated[
        Path | None, option("Connect by TLS, to a server whose certificate is of this CA (PEM).", "CA")
    ] = None
    client_cert: Annotated[
        Path | None, option("Certificate to show (PEM), to a server that asks for one.", "CLIENT_CERT")
    ] = None
    client_key: Annotated[Path | None, option("The key of --client-cert.", "CLIENT_KEY")] = None
    server_name: Annotated[
        str | None, option("The name in the server's certificate. [default: its --host]", "SERVER_NAME")
    ] = None

    def tls(self) -> "Tls | None":
        """Return how to connect; None for plain TCP.

        Raises:
            UsageError: a file can't be used, or one is missing.

        """
        if self.ca is None:
            if self.client_cert is not None or self.client_key is not None or self.server_name is not None:
                raise UsageError(
                    "--client-cert, --client-key and --server-name are for TLS: add --ca, the server's CA"
                )
            return None
        if (self.client_cert is None) != (self.client_key is None):
            raise UsageError("--client-cert and --client-key go together: give both, or neither")
        import ssl

        from trio_kv.client.tls import Tls, explain_tls

        try:
            return Tls.of_files(self.ca, self.client_cert, self.client_key, self.server_name)
        except ssl.SSLError as error:
            files = ", ".join(
                str(each) for each in (self.ca, self.client_cert, self.client_key) if each is not None
            )
            raise UsageError(f"{files}: no use for TLS: {explain_tls(error)}") from error
        except OSError as error:
            for path in (self.ca, self.client_cert, self.client_key):
                if path is not None and not os.access(path, os.R_OK):
                    raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
            raise UsageError(f"no use for TLS: {error}") from error


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class WayOptions(TlsOptions):
    """The same, and what to show."""

    token_from: Annotated[
        Path | None,
        option(
            f"File with the token to show, alone on its first line. {TOKEN_VARIABLE} holds one itself.",
            "TOKEN_FROM",
        ),
    ] = None

    def token(self) -> str | None:
        """Return the token to show; None for none.

        Raises:
            UsageError: the file can't be read, or holds none.

        """
        if self.token_from is None:
            return os.environ.get(TOKEN_VARIABLE) or None
        try:
            with self.token_from.open(encoding="utf-8") as file:
                words = file.readline(4096).split()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.token_from}: {getattr(error, 'strerror', None) or 'no text'}") from error
        if len(words) != 1:
            raise UsageError(f"{self.token_from} should hold a token, alone on its first line")
        return words[0]
