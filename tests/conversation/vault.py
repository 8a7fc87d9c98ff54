"""A Key Vault on this machine: the REST endpoint that the real SDK talks to, over TLS, with its challenge."""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
from azure.core.credentials import AccessToken
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "a-token-of-the-tenant"
_CHALLENGE = (
    'Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"'
)


class StaticCredential:
    """Gives the token that the vault wants, and remembers for what it was asked."""

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.asked: list[tuple[tuple[str, ...], str | None]] = []

    def get_token(self, *scopes: str, tenant_id: str | None = None, **_options: Any) -> AccessToken:
        self.asked.append((scopes, tenant_id))
        return AccessToken(self.token, 2**40)


class Vault:
    """A running vault."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.url = url
        self.certificate = certificate
        self.secrets: dict[str, str] = {}
        self.requests: list[tuple[str, bool]] = []
        """Each path that was asked for, and whether with a token."""


@contextmanager
def vault(folder: Path) -> Iterator[Vault]:
    certificate = _certificate(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = False  # so that `server_close` waits for them, and no socket outlives the test
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.vault = Vault(f"https://127.0.0.1:{server.server_port}", certificate)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.vault  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        vault: Vault = self.server.vault  # type: ignore[attr-defined]
        path, _, query = self.path.partition("?")
        given = self.headers.get("Authorization")
        vault.requests.append((path, given is not None))
        name = path.removeprefix("/secrets/").strip("/")
        if given is None:
            self._answer(401, {"error": {"code": "Unauthorized"}}, {"WWW-Authenticate": _CHALLENGE})
        elif given != f"Bearer {TOKEN}":
            self._answer(
                403, {"error": {"code": "Forbidden", "message": "The caller may not read secrets."}}, {}
            )
        elif name not in vault.secrets or "api-version=" not in query:
            self._answer(404, {"error": {"code": "SecretNotFound", "message": f"No secret {name}."}}, {})
        else:
            value = {
                "value": vault.secrets[name],
                "id": f"{vault.url}/secrets/{name}/1",
                "attributes": {"enabled": True},
            }
            self._answer(200, value, {})

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: object, headers: dict[str, str]) -> None:
        content = orjson.dumps(body)
        self.send_response(status)
        length = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "Connection": "close",  # or this thread would wait for a client that keeps its connection
        }
        for name, value in {**headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "vault.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
