"""The token and the certificates: for their owner alone, and what Ray is told of them."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from needs import needs

from cluster.keys import ensure_token, in_environment, make_certs, ray_environment, require_token, token_file


@pytest.fixture(autouse=True)
def _usual_umask(monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path):
    path = ensure_token(tmp_path / "a new folder" / "token")
    assert _mode(path) == 0o600
    assert _mode(path.parent) == 0o700
    made = path.read_text()
    assert len(bytes.fromhex(made)) == 32
    assert ensure_token(path).read_text() == made
    assert ensure_token(tmp_path / "another").read_text() != made
    assert [entry.name for entry in path.parent.iterdir()] == ["token"], "no draft is left"


def test_a_token_of_the_environment_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the environment")
    assert ensure_token(tmp_path / "token").read_text() == "of the environment"


def test_a_token_that_others_can_read_is_closed(tmp_path):
    path = tmp_path / "token"
    path.write_text("as Ray itself leaves it")
    assert _mode(path) == 0o644
    assert ensure_token(path).read_text() == "as Ray itself leaves it"
    assert _mode(path) == 0o600


def test_an_empty_token_is_refused(tmp_path):
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(ValueError, match=r"token: .*token' is empty; remove it"):
        ensure_token(tmp_path / "token")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_token_of_another_user_is_refused(tmp_path):
    path = ensure_token(tmp_path / "token")
    os.chown(path, 65534, 65534)
    with pytest.raises(ValueError, match="belongs to another user; name your own in RAY_AUTH_TOKEN_PATH"):
        ensure_token(path)


def test_a_token_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be used.*RAY_AUTH_TOKEN_PATH"):
        ensure_token(tmp_path / "a file" / "token")


def test_a_cluster_that_stands_has_its_token_already(tmp_path):
    path = tmp_path / "token"
    with pytest.raises(ValueError, match=r"is missing; copy it from the head \(there: `sweep cluster token`\)"):
        require_token(path)
    assert not path.exists(), "one made here would be wrong"
    assert require_token(ensure_token(path)) == path


def test_where_the_token_lies(monkeypatch):
    assert token_file() == Path.home() / ".ray" / "auth_token"
    assert token_file("~/mine") == Path.home() / "mine"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/named/elsewhere")
    assert token_file() == Path("/named/elsewhere")
    assert token_file("/of/the/profile") == Path("/of/the/profile")


# -- what Ray finds in its environment --------------------------------------------------------------------------


def test_ray_is_told_of_the_token_alone(tmp_path):
    assert ray_environment(tmp_path / "token") == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
    }


def test_ray_is_told_of_certificates(tmp_path):
    (own,) = make_certs(tmp_path / "certs", ["10.0.0.10"])
    environment = ray_environment(tmp_path / "token", str(own))
    assert environment["RAY_USE_TLS"] == "1"
    named = {name: Path(path).name for name, path in environment.items() if name.startswith("RAY_TLS_")}
    assert named == {
        "RAY_TLS_SERVER_CERT": "node.crt",
        "RAY_TLS_SERVER_KEY": "node.key",
        "RAY_TLS_CA_CERT": "ca.crt",
    }


@pytest.mark.parametrize("name", ["ca.crt", "node.crt", "node.key"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path, name):
    (own,) = make_certs(tmp_path / "certs", ["10.0.0.10"])
    (own / name).unlink()
    with pytest.raises(ValueError, match=rf"tls_dir = .*: {name} is missing; .*sweep cluster certs"):
        ray_environment(tmp_path / "token", str(own))


def test_the_environment_is_as_it_was_afterwards(tmp_path, monkeypatch):
    from ray._raylet import AuthenticationTokenLoader

    def token_of_ray() -> object:
        return AuthenticationTokenLoader.instance().get_token_for_http_header()

    monkeypatch.setenv("RAY_AUTH_TOKEN", "would win over the file")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    before = dict(os.environ)
    first, second = (ensure_token(tmp_path / name) for name in ("first", "second"))
    second.write_text("of the second")

    def use_both() -> None:
        with in_environment(ray_environment(first)):
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert "RAY_AUTH_TOKEN" not in os.environ
            assert "would win over the file" in str(token_of_ray()), "of which the first was made"
            with in_environment(ray_environment(second)):
                assert "of the second" in str(token_of_ray()), "Ray reads it again"
            assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(first)
            raise LookupError

    with pytest.raises(LookupError):
        use_both()
    assert dict(os.environ) == before


# -- certificates -----------------------------------------------------------------------------------------------


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _names(certificate: x509.Certificate) -> set[str]:
    return {
        str(name.value) for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    }


def _trusts(authority: Path, certificate: Path, address: str) -> bool:
    """As OpenSSL judges it, no less strictly than Python 3.13 does by default."""
    needs("openssl")
    asked = ["-verify_ip" if address[0].isdigit() else "-verify_hostname", address]
    command = ["openssl", "verify", "-x509_strict", "-CAfile", authority, *asked, certificate]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_certificates_hold_for_their_hosts_and_no_others(tmp_path):
    folder = tmp_path / "certs"
    first, second = make_certs(folder, ["10.0.0.10", "gpu-1.lan"])
    assert [first, second] == [folder / "10.0.0.10", folder / "gpu-1.lan"]
    assert _names(_certificate(first / "node.crt")) == {"10.0.0.10", "127.0.0.1", "localhost"}
    assert _names(_certificate(second / "node.crt")) == {"gpu-1.lan", "127.0.0.1", "localhost"}
    authority = folder / "ca.crt"
    for own in (first, second):
        assert (own / "ca.crt").read_bytes() == authority.read_bytes()
    assert _trusts(authority, first / "node.crt", "10.0.0.10")
    assert _trusts(authority, second / "node.crt", "gpu-1.lan")
    assert _trusts(authority, second / "node.crt", "127.0.0.1")
    assert not _trusts(authority, first / "node.crt", "gpu-1.lan")
    make_certs(tmp_path / "another", ["10.0.0.10"])
    assert not _trusts(tmp_path / "another" / "ca.crt", first / "node.crt", "10.0.0.10")


def test_a_host_signs_no_others(tmp_path):
    (own,) = make_certs(tmp_path / "certs", ["10.0.0.10"])
    constraints = x509.BasicConstraints
    assert not (own / "ca.key").exists()
    assert _certificate(own / "ca.crt").extensions.get_extension_for_class(constraints).value.ca
    assert not _certificate(own / "node.crt").extensions.get_extension_for_class(constraints).value.ca


def test_keys_are_for_their_owner_alone(tmp_path):
    folder = tmp_path / "certs"
    (own,) = make_certs(folder, ["10.0.0.10"])
    assert _mode(folder / "ca.key") == _mode(own / "node.key") == 0o600
    assert _mode(folder) == _mode(own) == 0o700


def test_hosts_can_be_added(tmp_path):
    folder = tmp_path / "certs"
    make_certs(folder, ["10.0.0.10"])
    authority = (folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes()
    before = (folder / "10.0.0.10" / "node.crt").read_bytes()
    (added,) = make_certs(folder, ["10.0.0.11"])
    assert ((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes()) == authority
    assert (folder / "10.0.0.10" / "node.crt").read_bytes() == before
    assert _trusts(folder / "ca.crt", added / "node.crt", "10.0.0.11")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(ValueError, match=r"certs: .* cannot be written .*; choose another folder"):
        make_certs(tmp_path / "a file", ["10.0.0.10"])


@pytest.mark.parametrize("host", ["", "..", "a/b", "gpu 1", "10.0.0.10:6379", "müller"])
def test_what_is_no_host_is_refused(tmp_path, host):
    with pytest.raises(ValueError, match=rf"--host {host!r}: is neither an address nor a host's name"):
        make_certs(tmp_path / "certs", ["10.0.0.10", host])
    assert not (tmp_path / "certs").exists()
