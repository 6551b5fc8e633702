"""TLS on our own listener: the context, a self-signed certificate for a local network, a certificate's name. [IO]

Browsers give camera and microphone to secure pages only, so a phone on the local network needs HTTPS. A self-signed
certificate makes that possible in a minute, with a warning to click through; iPhones refuse it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.clock import wall_now
from server.errors import ConfigError

_LIFETIME = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)
_CLOCK_SKEW = timedelta(days=1)
"""The certificate begins in the past: a phone's clock may be behind."""


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """Return the context of our HTTPS listener: TLS 1.2 or later, HTTP/1.1.

    Raises:
        ConfigError: A file that cannot be read, is not PEM, or a key that does not belong to the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"the certificate {cert} and the key {key} cannot be used: {reason}") from None
    return context


def self_signed(folder: Path, address: str) -> tuple[Path, Path]:
    """Return a certificate and key for an address, kept in a folder so that a browser has to be told only once.

    A new pair is made when there is none, when it covers another address, or in its last month.
    """
    cert_file, key_file = folder / "self-signed.pem", folder / "self-signed.key"
    with contextlib.suppress(OSError, ValueError):
        known = x509.load_pem_x509_certificate(cert_file.read_bytes())
        if key_file.exists() and _covers(known, address) and known.not_valid_after_utc - wall_now() > _RENEW_BEFORE:
            return cert_file, key_file
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cert_pem, key_pem = _make(address, socket.gethostname())
    _write_private(key_file, key_pem)
    cert_file.write_bytes(cert_pem)
    return cert_file, key_file


def name_for(cert: Path, address: str) -> str:
    """Return the host part of our links: the address if the certificate covers it, otherwise its first name.

    Raises:
        ConfigError: The certificate has no name that a link could use.
    """
    try:
        parsed = x509.load_pem_x509_certificate(cert.read_bytes())
    except OSError as error:
        raise ConfigError(f"{cert}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{cert}: not a PEM certificate") from None
    if _covers(parsed, address):
        return f"[{address}]" if ":" in address else address
    names = [name for name in _alternative_names(parsed).get_values_for_type(x509.DNSName) if "*" not in name]
    if not names:
        raise ConfigError(f"{cert} covers neither {address} nor a name: browsers will refuse it")
    return names[0]


def _make(address: str, hostname: str) -> tuple[bytes, bytes]:
    """Return a certificate and its key as PEM: P-256, for servers, not a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Colloque on {hostname}"[:64])])
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address))]
    names += [x509.DNSName(name) for name in dict.fromkeys((hostname, "localhost")) if name.isascii()]
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(wall_now() - _CLOCK_SKEW)
        .not_valid_after(wall_now() + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(file: Path, content: bytes) -> None:
    """Write a file that nobody else can read, at no time."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)


def _covers(certificate: x509.Certificate, address: str) -> bool:
    addresses = _alternative_names(certificate).get_values_for_type(x509.IPAddress)
    return ipaddress.ip_address(address) in addresses


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])
