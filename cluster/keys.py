"""Ray's token and certificates: who may run code on a cluster, and what its hosts trust (facts: CVE-2023-48022).

In: a path. Out: a token file that its owner alone can read, a folder of certificates, and the environment that tells
Ray of both. Ray reads that environment once, when it is imported, so it is set before.
"""

import datetime
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.private import write_private
from cluster.profile import Security

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

DEFAULT_TOKEN_PATH = Security().token_path
_CA, _CERT, _KEY = "ca.crt", "node.crt", "node.key"
_CA_KEY, _CA_NAME = "ca.key", "designspace-sweep"
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_VALID_DAYS = 825


def token_file(path: str = DEFAULT_TOKEN_PATH) -> Path:
    """Where Ray's token lies: `path`, unless $RAY_AUTH_TOKEN_PATH names another."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH") if path == DEFAULT_TOKEN_PATH else None
    return Path(named or path).expanduser()


def ensure_token(path: Path) -> Path:
    """Make the token if there is none (of $RAY_AUTH_TOKEN, else a random one), for its owner alone.

    Ray's own way leaves it readable by everyone on the host; such a file is closed. Raises `ValueError` if it
    belongs to someone else or is empty.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            write_private(path, os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32))
        status = path.stat()
        if status.st_uid not in (os.geteuid(), 0):
            raise ValueError(f"token: {str(path)!r} belongs to another user; name your own in RAY_AUTH_TOKEN_PATH")
        if stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid():
            path.chmod(0o600)
        if not path.read_text().strip():
            raise ValueError(f"token: {str(path)!r} is empty; remove it, and `sweep cluster token` makes one")
    except OSError as error:
        raise ValueError(
            f"token: {str(path)!r} cannot be used ({error.strerror}); name another place in RAY_AUTH_TOKEN_PATH"
        ) from error
    return path


def require_token(path: Path) -> Path:
    """The token of a cluster that stands. Raises `ValueError` if this host has none: one made here would be wrong."""
    if not path.is_file():
        raise ValueError(
            f"token: {str(path)!r} is missing; copy it from the head (there: `sweep cluster token`) with mode 0600, "
            "or name it in RAY_AUTH_TOKEN_PATH"
        )
    return ensure_token(path)


def ray_environment(token: Path, tls_dir: str = "") -> dict[str, str]:
    """What Ray must find in its environment. Raises `ValueError` if `tls_dir` lacks a file."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    if tls_dir:
        folder = Path(tls_dir).expanduser().absolute()
        for name in (_CA, _CERT, _KEY):
            if not (folder / name).is_file():
                raise ValueError(
                    f"tls_dir = {str(folder)!r}: {name} is missing; make certificates with "
                    "`sweep cluster certs DIR --host ADDR …` on one host and copy this host's folder here"
                )
        environment |= {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(folder / _CERT),
            "RAY_TLS_SERVER_KEY": str(folder / _KEY),
            "RAY_TLS_CA_CERT": str(folder / _CA),
        }
    return environment


@contextmanager
def in_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for Ray and make it read them, also if it was imported before; leaves all as it was.

    Only what was set before Ray's import counts for TLS.
    """
    names = {*values, "RAY_AUTH_TOKEN"}  # which would win over the file
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(values)
    _look_again()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _look_again()


def _look_again() -> None:
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def make_certs(folder: Path, hosts: Iterable[str]) -> list[Path]:
    """A certificate authority in `folder`, and in a folder for each host its certificate, key and the authority's.

    The authority is kept if there is one, so that hosts can be added. Its key signs any host: it stays where it was
    made. Valid for 825 days. Answers the hosts' folders. Raises `ValueError` where the folder cannot be written, or
    where a host is neither an address nor a name.
    """
    names = {host: [_alternative_name(name) for name in (host, "127.0.0.1", "localhost")] for host in hosts}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = _authority(folder)
        return [_certify(folder, host, alternatives, authority) for host, alternatives in names.items()]
    except OSError as error:
        raise ValueError(
            f"certs: {str(folder)!r} cannot be written ({error.strerror}); choose another folder"
        ) from error


def _authority(folder: Path) -> "ec.EllipticCurvePrivateKey":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path = folder / _CA_KEY
    if path.exists():
        kept = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(kept, ec.EllipticCurvePrivateKey)
        return kept
    key = ec.generate_private_key(ec.SECP256R1())
    signs_only = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _certificate(_CA_NAME, key, key)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(signs_only, critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / _CA).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_private(path, _pem(key))
    return key


def _certify(
    folder: Path, host: str, alternatives: "list[x509.GeneralName]", authority: "ec.EllipticCurvePrivateKey"
) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _certificate(host, key, authority)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(authority, hashes.SHA256())
    )
    own = folder / host
    own.mkdir(exist_ok=True, mode=0o700)
    write_private(own / _KEY, _pem(key))
    (own / _CERT).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (own / _CA).write_bytes((folder / _CA).read_bytes())
    return own


def _certificate(
    name: str, key: "ec.EllipticCurvePrivateKey", authority: "ec.EllipticCurvePrivateKey"
) -> "x509.CertificateBuilder":
    """What the authority's own and a host's have in common; the identifiers are for clients that check strictly."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, of[:64])]) for of in (name, _CA_NAME))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of hosts differ
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )


def _pem(key: "ec.EllipticCurvePrivateKey") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _alternative_name(host: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ValueError(
                f"--host {host!r}: is neither an address nor a host's name; write 10.0.0.10 or gpu-1.lan"
            ) from None
        return x509.DNSName(host)
