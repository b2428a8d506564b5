"""A small CA for a cluster that is tried out, and the certificates that it signs. It needs the library cryptography.

A node's certificate has the name by which its peers know it (`transport.peer_tls`), and those by which clients reach
its host, so that it serves at the doors as well. That of a client has no node's name: it opens doors which ask for
one, and makes nobody a peer.

Keys are of the curve P-256, which whatever speaks TLS knows.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trio_kv.transport.peer_tls import DOMAIN, peer_name

CA_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 825
"""The most that all systems take."""
EARLY: Final = dt.timedelta(days=1)
"""So much earlier they begin, for hosts whose clocks are slow."""
OWN_NAMES: Final = ("localhost", "127.0.0.1")
"""By which clients on its own machine reach a node."""
_BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_CLIENT: Final = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@attrs.frozen
class Made:
    """What was made."""

    files: Mapping[str, bytes]
    """By name, in PEM: `ca.pem` and `ca.key`, `node-N.pem` and `node-N.key`, `client.pem` and `client.key`."""
    end: dt.datetime
    """When the certificates are no good any more."""


def make_certificates(cluster: str, hosts: Mapping[int, str], now: dt.datetime | None = None) -> Made:
    """Make a CA for a cluster, and certificates for its nodes and for a client.

    Args:
        cluster: its id.
        hosts: the name or the address of each node's host.
        now: what time it is; None asks the clock.

    """
    now = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    end = now + dt.timedelta(days=CERTIFICATE_DAYS)
    ca = _Authority.make(cluster, now)
    files = {"ca.pem": _pem(ca.certificate), "ca.key": _key_pem(ca.key)}
    subjects = {
        f"node-{node}": (peer_name(cluster, node), [host, *OWN_NAMES], _BOTH) for node, host in hosts.items()
    }
    for file, (name, names, usages) in {
        **subjects,
        "client": (f"client.{cluster}.{DOMAIN}", [], _CLIENT),
    }.items():
        certificate, key = ca.issue(name, names, usages, now - EARLY, end)
        files |= {f"{file}.pem": _pem(certificate), f"{file}.key": _key_pem(key)}
    return Made(files, end)


@attrs.frozen
class _Authority:
    """A CA."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, cluster: str, now: dt.datetime) -> "_Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"CA of {cluster}.{DOMAIN}")
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            _builder(name, name, key, now - EARLY, now + dt.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_ca=True), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(
        self,
        name: str,
        names: Iterable[str],
        usages: Iterable[x509.ObjectIdentifier],
        begin: dt.datetime,
        end: dt.datetime,
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Return a certificate with these names, the first of which is its subject's, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [_general_name(each) for each in dict.fromkeys([name, *names])]
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        builder = (
            _builder(_name(name), self.certificate.subject, key, begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
        )
        return builder.sign(self.key, hashes.SHA256()), key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    public_key = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text.encode("idna").decode())


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
