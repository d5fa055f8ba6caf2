"""Who may connect, and as whom: tokens, client certificates, the socket's peer, and the headers that browsers send."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jetwire_protocol.declarations import ROLES

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
TOKEN_BYTES = 32  # 256 random bits: one round of a hash is enough, nobody can try them out
TOKEN_PREFIX = "jw_"
_HASH = re.compile("[0-9a-f]{64}")
_CREATED_MAX = 1e11  # seconds: what calendars can tell


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is stored: never itself, only its hash."""

    name: str
    role: str
    hash: str
    created: float

    @staticmethod
    def make(name: str, role: str, created: float) -> tuple[str, Token]:
        """A new token: the text for its holder, and what to store."""
        if role not in ROLES:
            raise ValueError(f"no role {role!r}; there are {', '.join(ROLES)}")
        text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        return text, Token(name, role, _hash(text), created)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tokens_to_json(tokens: list[Token]) -> bytes:
    return json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=1).encode()


def tokens_from_json(data: bytes) -> list[Token]:
    tokens = [Token(row["name"], row["role"], row["hash"], row["created"]) for row in json.loads(data)["tokens"]]
    for token in tokens:
        sound = isinstance(token.name, str) and token.role in ROLES and _HASH.fullmatch(token.hash) and 0 <= token.created < _CREATED_MAX
        if not sound:
            raise ValueError(f"{token.name!r} is no whole token")
    return tokens


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a connection speaks for. An empty role has not authenticated."""

    role: str = ""
    principal: str = ""


NOBODY = Identity()


@dataclass
class Gatekeeper:
    """Decides over connections. `open_loopback`: who comes from this machine needs no token and may do everything."""

    tokens: list[Token] = field(default_factory=list)
    certificates: Mapping[str, str] = field(default_factory=dict)  # common name of a client certificate -> role
    open_loopback: bool = True
    insecure: bool = False
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    own_uid: int = -1

    def by_token(self, text: str) -> Identity:
        """Every stored hash is compared, in constant time, whichever fits: the time tells nothing."""
        given = _hash(text)
        found = NOBODY
        for token in self.tokens:
            if hmac.compare_digest(token.hash, given):
                found = Identity(token.role, token.name)
        return found

    def by_address(self, address: Any, certificate: Mapping[str, Any] | None = None) -> Identity:
        """A TCP connection's identity before it has said anything."""
        if certificate:
            names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
            for name in names:
                if name in self.certificates:
                    return Identity(self.certificates[name], name)
        host = address[0] if isinstance(address, tuple) else str(address or "")
        if self.insecure or (self.open_loopback and is_loopback(host)):
            return Identity("admin", "local")
        return NOBODY

    def by_uid(self, uid: int) -> Identity:
        """A Unix socket's other end: the server's own user and root may do everything."""
        return Identity("admin", f"uid {uid}") if uid in (0, self.own_uid) else NOBODY

    def host_allowed(self, host: str) -> bool:
        """The Host header: a name of the loopback, or a configured one. Stops DNS rebinding."""
        name = _without_port(host).lower()
        return name in LOOPBACK_NAMES or name in self.hosts or "*" in self.hosts

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """The Origin header, where one is sent: the same host, or a configured one. Stops other sites' pages."""
        if origin is None:
            return True
        if origin in self.origins or "*" in self.origins:
            return True
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest.lower() == host.lower()


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(address.is_loopback or (mapped is not None and mapped.is_loopback))


class UnsafeStart(Exception):
    """The server was asked to listen where anybody could do anything."""


def check_addresses(hosts: list[str], *, tls: bool, tokens: bool, certificates: bool, insecure: bool) -> None:
    """An address that is not the loopback needs TLS, and tokens or client certificates."""
    for host in hosts:
        if insecure or is_loopback(host):
            continue
        if not tls:
            raise UnsafeStart(f"{host} is not a loopback address: it needs TLS (--tls-cert, --tls-key), or --insecure")
        if not (tokens or certificates):
            raise UnsafeStart(f"{host} is not a loopback address: make a token (`jetwired token add`), or give --tls-client-ca")
