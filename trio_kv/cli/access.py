"""The files that say who may: a server's tokens and certificates. They are read at the start, and anew on SIGHUP.

All are read before any of it takes effect, so that a mistake in one leaves all as they were.
"""

import importlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import attrs

from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.options import ServeOptions
from trio_kv.proxy.access import Tokens, parse_tokens
from trio_kv.transport.secure import MutualTls, Security
from trio_kv.transport.tls import CertificateError, Credentials, Files, Loaded, load

TOKEN_FILE_BYTES_MAX = 1 << 20


class AccessError(Exception):
    """A file can't be used; the argument says which, why, and what would do."""


@attrs.frozen
class Read:
    """What the files say."""

    tokens: Tokens | None
    loaded: Loaded | None
    security: Security | None = None
    """Of connections with other hosts; None: there are no others."""


@attrs.frozen
class Access:
    """What a server was opened with, and where it is read anew."""

    _options: ServeOptions
    tokens: Tokens | None
    credentials: Credentials | None
    security: Security | None = None
    """Of connections with other hosts; None: there are no others."""

    def read(self) -> Read:
        """Read all files. Not for the event loop.

        Raises:
            AccessError: one of them can't be used.

        """
        return read_access(self._options)

    def replace_peers(self, read: Read) -> None:
        """Let the certificates that were read be those of new connections with other hosts."""
        if isinstance(self.security, MutualTls) and isinstance(read.security, MutualTls):
            self.security.contexts = read.security.contexts


def open_access(options: ServeOptions) -> Access:
    """Read what the options name, for the first time. Not for the event loop. Raises as `read_access`."""
    read = read_access(options)
    credentials = None if read.loaded is None else Credentials(read.loaded)
    return Access(options, read.tokens, credentials, read.security)


def read_access(options: ServeOptions) -> Read:
    """Return what the files say that the options name.

    Raises:
        AccessError: one of them can't be used.

    """
    tokens = None if options.token_file is None else read_token_file(options.token_file)
    has_certificate = options.tls_cert is not None and options.tls_key is not None
    try:
        loaded = load(_files(options)) if has_certificate else None
        security = None if options.cluster is None else _load_security(options)
    except (CertificateError, UsageError) as error:
        raise AccessError(str(error)) from error
    return Read(tokens, loaded, security)


def _files(options: ServeOptions) -> Files:
    assert options.tls_cert is not None
    assert options.tls_key is not None
    return Files(options.tls_cert, options.tls_key, options.tls_client_ca)


def _load_security(options: ServeOptions) -> Security:
    # Loaded when it is needed: most servers have all nodes.
    load_security: Callable[[ServeOptions], Security]
    load_security = importlib.import_module("trio_kv.cli.host").load_security
    return load_security(options)


def read_token_file(path: Path) -> Tokens:
    """Return the tokens of a file that its owner alone can read.

    Raises:
        AccessError: others can read it, or it can't be read, or holds something else.

    """
    try:
        # Not to wait for a writer, if it is a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(TOKEN_FILE_BYTES_MAX + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise AccessError(explain_os_error(error, str(path))) from error
    if not stat.S_ISREG(status.st_mode):
        raise AccessError(f"{path} is no file")
    if status.st_mode & 0o077:
        raise AccessError(
            f"{path} has tokens, and can be read by others (mode {stat.S_IMODE(status.st_mode):04o}):"
            f" chmod 600 {path}"
        )
    if len(content) > TOKEN_FILE_BYTES_MAX:
        raise AccessError(f"{path} has more than {TOKEN_FILE_BYTES_MAX} bytes, which are no tokens")
    try:
        return parse_tokens(content.decode())
    except UnicodeDecodeError as error:
        raise AccessError(f"{path} is not UTF-8") from error
    except ValueError as error:
        raise AccessError(f"{path}: {error}") from error
