"""Ray's token and certificates: who may run code on a cluster, and what its hosts trust (facts: CVE-2023-48022).

In: a path. Out: a token file that its owner alone can read, a folder of certificates, and the environment that tells
Ray of both. Ray reads that environment once, when it is imported, so it is set before.
"""

import datetime
import ipaddress
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster.profile import Security

DEFAULT_TOKEN_PATH = Security().token_path
_CA, _CERT, _KEY = "ca.crt", "node.crt", "node.key"
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


def write_private(path: Path, text: str) -> None:
    """Write for this user alone, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(draft, path)


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
    made. Valid for 825 days. Answers the hosts' folders. Raises `ValueError` where the folder cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def pem(key: ec.EllipticCurvePrivateKey) -> str:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    now = datetime.datetime.now(datetime.UTC)

    def builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks of hosts differ
            .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        )

    ca_name = "designspace-sweep"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ca_key_path, ca_path = folder / "ca.key", folder / _CA
        if ca_key_path.exists():
            loaded = serialization.load_pem_private_key(ca_key_path.read_bytes(), None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            ca_key = loaded
        else:
            ca_key = ec.generate_private_key(ec.SECP256R1())
            ca = builder(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(True, 0), critical=True)
            write_private(ca_key_path, pem(ca_key))
            ca_path.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        made = []
        for host in hosts:
            key = ec.generate_private_key(ec.SECP256R1())
            alternatives = [_alternative_name(name) for name in (host, "127.0.0.1", "localhost")]
            cert = builder(host, ca_name, key).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            own = folder / host
            own.mkdir(exist_ok=True, mode=0o700)
            write_private(own / _KEY, pem(key))
            (own / _CERT).write_bytes(cert.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
            (own / _CA).write_bytes(ca_path.read_bytes())
            made.append(own)
    except OSError as error:
        raise ValueError(
            f"certs: {str(folder)!r} cannot be written ({error.strerror}); choose another folder"
        ) from error
    return made


def _alternative_name(host: str):
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
