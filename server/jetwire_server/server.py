"""The server: opens the data, listens, serves until it is told to stop, drains, and closes the data."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import ssl
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jetwire_protocol.errors import JetError
from jetwire_protocol.jsonrpc import WireLimits
from jetwire_server import limits
from jetwire_server.clock import Clock, SystemClock
from jetwire_server.config import Address, Settings
from jetwire_server.console.page import console_page
from jetwire_server.descriptors import connections_that_fit, left_for_data
from jetwire_server.events import EventLog
from jetwire_server.files.directory_lock import DirectoryLock
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.whole import read_if_there
from jetwire_server.hosting import Hosting
from jetwire_server.local_door import LocalDoor
from jetwire_server.rpc import handlers
from jetwire_server.rpc.http import HttpListener
from jetwire_server.rpc.security import Gatekeeper, Token, check_addresses, tokens_from_json
from jetwire_server.rpc.service import Service
from jetwire_server.rpc.tcp import listen_tcp, listen_unix

log = logging.getLogger(__name__)

TOKENS_FILE = "tokens.json"

assert handlers, "importing the handlers registers them"


def jetwire_version() -> str:
    try:
        return version("jetwire")
    except PackageNotFoundError:
        return "unknown"


class TokensDamaged(ValueError):
    """The file of tokens cannot be read: nobody is let in or kept out by a guess."""


def read_tokens(files: LocalFiles) -> list[Token]:
    data = read_if_there(files, TOKENS_FILE)
    try:
        return tokens_from_json(data) if data else []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TokensDamaged(f"{files.root}/{TOKENS_FILE} is damaged: {error}; mend it, or remove it and add the tokens anew") from error


class Server:
    """One server process' worth of everything. `say` prints a line for people."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        say: Callable[[str], None] = print,
        descriptors: int = limits.FILES_UNLIMITED,
    ) -> None:
        self.settings = settings
        self._descriptors = descriptors  # that the process may have open
        connections, backlog = connections_that_fit(descriptors, settings.connections)
        self.clock = clock or SystemClock()
        self.events = EventLog()
        self._say = say
        self._files = LocalFiles(settings.data)
        self._lock = DirectoryLock(self._files)
        self._door = LocalDoor(Path(settings.runtime)) if settings.runtime else None
        self._unix_lock: DirectoryLock | None = None  # on the path of the Unix socket, if one was given
        self._cookie: list[Token] = []  # the token on the local door's card
        self._tls: ssl.SSLContext | None = None
        self._listeners: list[asyncio.Server] = []
        self._http: HttpListener | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.addresses: dict[str, str] = {}
        self.service = Service(
            version=jetwire_version(),
            clock=self.clock,
            events=self.events,
            gatekeeper=Gatekeeper(
                certificates=settings.client_certificates,
                open_loopback=not settings.require_token,
                insecure=settings.insecure,
                hosts=frozenset(host.lower() for host in settings.allow_hosts),
                origins=frozenset(settings.allow_origins),
                own_uid=os.getuid(),
            ),
            wire_limits=WireLimits(settings.message_bytes, settings.depth, settings.elements, settings.batch),
            connections_max=connections,
            backlog=backlog,
            http_head_seconds=settings.http_head_seconds,
            http_body_seconds=settings.http_body_seconds,
            in_flight_max=settings.in_flight,
            result_bytes_max=settings.result_bytes,
            slow_reader_seconds=settings.slow_reader_seconds,
            idle_seconds=settings.idle_seconds,
        )
        self.hosting = hosting = Hosting(self._files, self.clock, self.events)
        hosting.engine.answer_bytes_max = settings.result_bytes
        self.service.engine = hosting.engine
        self.service.snapshots = hosting.snapshots
        self.service.backups = hosting.backups
        self.service.event_table = hosting.event_table
        self.service.remember = hosting.remember

    # -- start --------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Listens last: who can connect can work."""
        settings, gatekeeper = self.settings, self.service.gatekeeper
        try:
            self._files.make_directory("")
        except JetError as error:
            raise JetError(error.code, f"{settings.data}: {error.detail.removeprefix(': ')}") from error
        gatekeeper.tokens = read_tokens(self._files)
        check_addresses(
            [Address.parse(text).host for text in (settings.http, settings.tcp) if text],
            tls=settings.tls_cert is not None,
            tokens=bool(gatekeeper.tokens),
            certificates=settings.tls_client_ca is not None,
            insecure=settings.insecure,
        )
        self._tls = self._make_tls()
        self._lock.acquire()
        try:
            await self.hosting.start()  # what ran runs again, whatever may be open by now
            self.hosting.engine.files_max = left_for_data(self._descriptors, self.service.connections_max, self.service.backlog)
            for name, why in self.hosting.not_started.items():
                self._say(f"the instance {name} does not run: {why}")
                log.error("the instance %s does not run: %s", name, why)
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        self._sweeper = asyncio.create_task(self.service.sweep_forever(), name="sweeper")

    # -- listeners ----------------------------------------------------------------------------------------------
    async def _listen(self) -> None:
        settings = self.settings
        secure = self._tls is not None
        if settings.http:
            self._http = HttpListener(self.service, self.ready, {"/console": console_page})
            got = await self._http.start(*Address.parse(settings.http), self._tls)
            self.addresses["http"] = f"http{'s' if secure else ''}://{Address(*got)}/rpc"
            self.addresses["ws"] = f"ws{'s' if secure else ''}://{Address(*got)}/rpc"
        if settings.tcp:
            listener = await listen_tcp(self.service, *Address.parse(settings.tcp), self._tls)
            self._listeners.append(listener)
            host, port = listener.sockets[0].getsockname()[:2]
            self.addresses["tcp"] = f"{'tls' if secure else 'tcp'}://{Address(host, port)}"
        if settings.unix:
            lock = DirectoryLock(LocalFiles(settings.unix.parent), f"{settings.unix.name}.lock")
            lock.acquire()
            self._unix_lock = lock
            self._listeners.append(await listen_unix(self.service, settings.unix))
            self.addresses["unix"] = f"unix://{settings.unix.absolute()}"
        await self._open_the_door()
        if self.service.connections_max < settings.connections:
            self._say(f"{self.service.connections_max} connections at most: the limit of open files (ulimit -n) is {self._descriptors}")
        for kind, address in self.addresses.items():
            self._say(f"listening {kind} {address}")

    async def _open_the_door(self) -> None:
        """What is found without configuration, once all other addresses are known. A server can do without: it says why."""
        if self._door is None:
            return
        try:
            self._door.take()
            if not self.settings.unix:
                self._listeners.append(await listen_unix(self.service, self._door.socket))
                self.addresses["unix"] = f"unix://{self._door.socket}"
            token = None
            if self.settings.require_token:
                token, made = Token.make("local cookie", "admin", self.clock.now())
                self._cookie = [made]
                self.service.gatekeeper.tokens = [*self.service.gatekeeper.tokens, made]
            self._door.show(self.addresses, token)
        except (JetError, OSError) as error:
            reason = f"in use by {error.data['holder']}" if isinstance(error, JetError) and "holder" in error.data else error
            self._say(f"not to be found without its address: {self.settings.runtime}: {reason}")
            self._door.leave()
            self._door = None

    def _make_tls(self) -> ssl.SSLContext | None:
        settings = self.settings
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        except OSError as error:
            raise OSError(f"the certificate {settings.tls_cert} and the key {settings.tls_key} cannot be used: {error}") from error
        if settings.tls_client_ca is not None:
            try:
                context.load_verify_locations(settings.tls_client_ca)
            except OSError as error:
                raise OSError(f"the authority {settings.tls_client_ca} cannot be used: {error}") from error
            # Optional, because a token is as good; who has neither may say nothing but Hello.
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def reload(self) -> None:
        """SIGHUP: certificates and tokens are read again; connections that stand are not touched."""
        settings = self.settings
        try:
            tokens = [*read_tokens(self._files), *self._cookie]
            if self._tls is not None and settings.tls_cert is not None and settings.tls_key is not None:
                self._make_tls()  # first: a certificate and a key that do not fit (one of them is new) leave a context with none
                self._tls.load_cert_chain(settings.tls_cert, settings.tls_key)
            self.service.gatekeeper.tokens = tokens
        except (OSError, ValueError, JetError) as error:
            log.error("reload failed, what was read before stays in force: %s", error)

    def ready(self) -> dict[str, Any]:
        """What /readyz says beside being ready."""
        return {"frozen": self.hosting.snapshots.status().state == "frozen"}

    # -- stop ---------------------------------------------------------------------------------------------------
    async def stop(self) -> None:
        """Refuses what is new, finishes what runs, and closes the data."""
        for listener in self._listeners:
            listener.close()
        if self._door is not None:
            self._door.leave()
        await self.service.drain(self.settings.drain_seconds)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._http is not None:
            await self._http.stop()
        for error in await self.hosting.stop():
            log.error("an instance did not end well: %s", error)
        if self._unix_lock is not None:
            if self.settings.unix is not None and "unix" in self.addresses:  # not if it was another program's
                self.settings.unix.unlink(missing_ok=True)
            self._unix_lock.release()
        self._lock.release()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        await self.start()
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        if "http" in self.addresses:
            self._say(f"""try: curl -s -d '{{"jsonrpc":"2.0","id":1,"method":"Hello"}}' {self.addresses["http"]}""")
        self._say("ready")
        await asked.wait()
        self._say("stopping")
        await self.stop()
        self._say("stopped")
