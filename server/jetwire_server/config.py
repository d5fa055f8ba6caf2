"""The settings, read once: flags before environment (`JETWIRE_...`) before file (TOML) before defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from jetwire_protocol.declarations import ROLES
from jetwire_server import limits
from jetwire_server.local_door import runtime_directory


class Address(NamedTuple):
    host: str
    port: int

    @staticmethod
    def parse(text: str) -> Address:
        host, colon, port = text.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
            raise ValueError(f"{text!r} is not HOST:PORT")
        return Address(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Settings(BaseSettings):
    """All that a server can be told."""

    model_config = SettingsConfigDict(env_prefix="JETWIRE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    data: Path = Field(Path("data"), description="directory of the instances")
    http: str = Field("127.0.0.1:3730", description="HOST:PORT of HTTP and WebSocket; empty for none")
    tcp: str = Field("127.0.0.1:3731", description="HOST:PORT of JSON lines; empty for none")
    unix: Path | None = Field(None, description="path of a Unix socket; default: one in the directory below")
    runtime: str = Field(
        default_factory=runtime_directory, description="directory in which programs on this machine find the server; empty for none"
    )

    tls_cert: Path | None = Field(None, description="certificate chain, PEM; read again at SIGHUP")
    tls_key: Path | None = None
    tls_client_ca: Path | None = Field(None, description="who signs the certificates of clients")
    client_certificates: dict[str, str] = Field(default_factory=dict, description="common name of a client certificate -> role")
    require_token: bool = Field(False, description="no access without a token from this machine either")
    insecure: bool = Field(False, description="listen anywhere, without TLS and tokens")
    allow_hosts: list[str] = Field(default_factory=list, description="further values of the Host header")
    allow_origins: list[str] = Field(default_factory=list, description="further values of the Origin header")

    message_bytes: int = Field(8 << 20, gt=0)
    depth: int = Field(64, gt=0)
    elements: int = Field(100_000, gt=0)
    batch: int = Field(1_000, gt=0)
    connections: int = Field(limits.CONNECTIONS_MAX, gt=0)
    http_head_seconds: float = Field(limits.HTTP_HEAD_SECONDS, gt=0)
    http_body_seconds: float = Field(limits.HTTP_BODY_SECONDS, gt=0)
    in_flight: int = Field(limits.CALLS_IN_FLIGHT_MAX, gt=0)
    result_bytes: int = Field(limits.RESULT_BYTES_MAX, gt=0)
    slow_reader_seconds: float = Field(limits.SLOW_READER_SECONDS, gt=0)
    idle_seconds: float = Field(limits.IDLE_SECONDS, ge=0)
    drain_seconds: float = Field(limits.DRAIN_SECONDS, ge=0)

    @field_validator("data", mode="before")
    @classmethod
    def _is_named(cls, given: Any) -> Any:
        if given == "":
            raise ValueError("an empty name is no directory: for the current one say .")
        return given

    @field_validator("http", "tcp")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        if text:
            Address.parse(text)
        return text

    @field_validator("client_certificates")
    @classmethod
    def _are_roles(cls, given: dict[str, str]) -> dict[str, str]:
        for role in given.values():
            if role not in ROLES:
                raise ValueError(f"no role {role!r}; there are {', '.join(ROLES)}")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert")
        if not (self.http or self.tcp or self.unix):
            raise ValueError("no address to listen on")
        return self


def load(file: Path | None = None, **flags: Any) -> Settings:
    """The settings of a file, the environment and the flags that were given (None: not given)."""

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *sources: Any, **named: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            environment: PydanticBaseSettingsSource = named["env_settings"]
            return (init_settings, environment, TomlConfigSettingsSource(settings_cls, toml_file=file))

    if file is not None and not file.is_file():
        raise ValueError("there is no such file")
    return Loaded(**{name: value for name, value in flags.items() if value is not None})
