"""The cluster's certificate authority and what it issues, kept in the API server's data directory."""

import datetime
import enum
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from svcplane.base.errors import ConfigError
from svcplane.server.auth import MASTERS

CA_DAYS, SERVING_DAYS = 3650, 365
RENEW_DAYS = 30


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all.  Raises OSError that names the file."""
    partial = path.with_name(path.name + ".partial")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


class KeyPair(NamedTuple):
    """Files of a certificate and its key."""

    cert: Path
    key: Path


class Usage(enum.Enum):
    """What a certificate is for."""

    SERVER = ExtendedKeyUsageOID.SERVER_AUTH
    CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


class Authority:
    """The cluster's authority: files `ca.crt` and `ca.key` in a directory, made where missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.ca_path, self._ca_key_path = directory / "ca.crt", directory / "ca.key"
        if not (self.ca_path.exists() and self._ca_key_path.exists()):
            self._make_authority()

    def _make_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "svcplane-ca")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self._ca_key_path, _key_pem(key), 0o600)
        _write(self.ca_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def apiserver(self, hosts: Sequence[str]) -> KeyPair:
        """The API server's serving certificate for these names and addresses."""
        return self._issue("server", _subject("svcplane-apiserver"), hosts, Usage.SERVER)

    def node(self, name: str, hosts: Sequence[str]) -> KeyPair:
        """The serving certificate of a node's agent, as the kubelet's."""
        subject = _subject(f"system:node:{name}", "system:nodes")
        return self._issue(f"node-{name}", subject, hosts, Usage.SERVER)

    def node_client(self) -> KeyPair:
        """What the API server shows to a node's agent, as kube-apiserver's --kubelet-client-certificate."""
        return self._issue("node-client", _subject("svcplane-apiserver-node-client", MASTERS), (), Usage.CLIENT)

    def _issue(self, file: str, subject: x509.Name, hosts: Sequence[str], usage: Usage) -> KeyPair:
        """Files FILE.crt and FILE.key; kept while they still fit.  Raises ConfigError for a wrong authority."""
        pair = KeyPair(self._directory / f"{file}.crt", self._directory / f"{file}.key")
        if self._fits(pair, hosts):
            return pair
        try:
            ca = x509.load_pem_x509_certificate(self.ca_path.read_bytes())
            ca_key = serialization.load_pem_private_key(self._ca_key_path.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._directory}: ca.crt or ca.key is unusable: {error}") from error
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{self._ca_key_path}: must be an elliptic-curve key")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, ca.subject, key.public_key(), SERVING_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage.value]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        certificate = builder.sign(ca_key, hashes.SHA256())
        _write(pair.key, _key_pem(key), 0o600)
        _write(pair.cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return pair

    def _fits(self, pair: KeyPair, hosts: Sequence[str]) -> bool:
        """Of this authority, not about to end, and for all these names."""
        try:
            certificate = x509.load_pem_x509_certificate(pair.cert.read_bytes())
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(self.ca_path.read_bytes()))
        except (OSError, ValueError, TypeError, InvalidSignature):
            return False
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=RENEW_DAYS)
        if certificate.not_valid_after_utc < soon or not pair.key.exists():
            return False
        if not hosts:
            return True
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return all(name in names for name in _names(hosts))


def _subject(name: str, organisation: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organisation:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(parts)


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            found.append(x509.DNSName(host))
    return found


def server_context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer; client certificates are asked for where there is a CA for them.  Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS files {cert}, {key}: {error}") from error
    return context
