"""The `jetwired` command: the server, and what is done to its data while it does not run."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvloop
from pydantic import ValidationError
from pydantic_settings import SettingsError

from jetwire_protocol.declarations import ROLES
from jetwire_protocol.errors import JetError
from jetwire_server import failpoints
from jetwire_server.config import Settings, load
from jetwire_server.descriptors import take_all
from jetwire_server.files.local import LocalFiles, reserve_standard_streams
from jetwire_server.health import DEFAULT, ask
from jetwire_server.offline import commands as offline_commands
from jetwire_server.rpc.security import Token, UnsafeStart, tokens_to_json
from jetwire_server.server import TOKENS_FILE, Server, TokensDamaged, jetwire_version, read_tokens

app = typer.Typer(help="The Jetwire server.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
token_app = typer.Typer(help="The tokens that clients authenticate with.", no_args_is_help=True)
app.add_typer(token_app, name="token")
offline_commands.register(app)

SWITCH_SECONDS = 0.0005  # the log's and the pages' threads must get the interpreter soon
COLLECT_AFTER = (50_000, 20, 50)  # calls make few cycles; the collector need not look so often

Data = Annotated[Path, typer.Option(help="Directory of the data.", metavar="PATH", parser=offline_commands.named)]


def _fail(text: str, code: int = 2) -> typer.Exit:
    print(f"jetwired: {text}", file=sys.stderr)
    return typer.Exit(code)


@app.command()
def serve(
    data: Annotated[
        Path | None,
        typer.Option(help="Directory of the data; made if it is not there. Default: data.", metavar="PATH", parser=offline_commands.named),
    ] = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT of HTTP and WebSocket; port 0 picks one.")] = None,
    tcp: Annotated[str | None, typer.Option(help="HOST:PORT of JSON lines; port 0 picks one.")] = None,
    unix: Annotated[Path | None, typer.Option(help="Path of a Unix socket. Default: one in the runtime directory.")] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Directory in which programs on this machine find the server; empty for none. "
            "Default: $XDG_RUNTIME_DIR/jetwire, else /run/jetwire."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with any of the settings.", envvar="JETWIRE_CONFIG")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM); read again at SIGHUP.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Who signs the certificates of clients (PEM).")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A further value of the Host header; may be repeated.")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A further value of the Origin header; may be repeated.")] = None,
    require_token: Annotated[bool, typer.Option("--require-token", help="No access without a token from this machine either.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen anywhere, without TLS and tokens.")] = False,
) -> None:
    """Serves the instances in a directory until SIGTERM."""
    try:
        settings = load(
            config,
            data=data,
            http=http,
            tcp=tcp,
            unix=unix,
            runtime=runtime,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            allow_hosts=allow_host,
            allow_origins=allow_origin,
            require_token=require_token or None,
            insecure=insecure or None,
        )
    except ValidationError as error:
        raise _fail("; ".join(_told(e["loc"], e["msg"]) for e in error.errors())) from None
    except SettingsError as error:
        raise _fail(f"{error}: in the environment lists and maps are JSON, as in JETWIRE_ALLOW_HOSTS='[\"db.example\"]'") from None
    except (OSError, ValueError) as error:
        raise _fail(f"{config}: {error}" if config else str(error)) from None
    raise typer.Exit(run_server(settings))


def _told(where: tuple[int | str, ...], what: str) -> str:
    """One of pydantic's findings, in our words: which setting, and what is wrong with it."""
    what = "there is no such setting" if what == "Extra inputs are not permitted" else what.removeprefix("Value error, ")
    return ": ".join(filter(None, (".".join(map(str, where)), what)))


def run_server(settings: Settings) -> int:
    """Runs a server to its end; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    failpoints.arm_from_environment(os.environ.get("JETWIRE_FAILPOINTS", ""))
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*COLLECT_AFTER)

    def say(line: str) -> None:
        with suppress(OSError):  # nobody reads it any more, or the disk is full: the server goes on, and ends as it should
            os.write(sys.stdout.fileno(), f"{line}\n".encode())

    async def main() -> None:
        await Server(settings, say=say, descriptors=take_all()).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except (UnsafeStart, TokensDamaged, JetError, OSError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE and error.filename is None
        advice = "; stop what listens there, or choose another address with --http and --tcp" if taken else ""
        print(f"jetwired: {error}{advice}", file=sys.stderr)
        return 1
    return 0


@app.command()
def health(
    http: Annotated[str, typer.Option(help="HOST:PORT of a server's HTTP.")] = DEFAULT,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS; the certificate is not looked at.")] = False,
) -> None:
    """Whether a server is ready: exit code 0, or 1 with the reason. For containers and service managers."""
    ready, said = ask(http, tls=tls)
    if not ready:
        raise _fail(said, 1)
    print(said)


@app.command()
def version() -> None:
    """Prints the version."""
    print(jetwire_version())


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "reader",
    data: Data = Path("data"),
) -> None:
    """Makes a token and prints it: it is not stored and cannot be shown again."""
    if not name.strip() or not name.isprintable():
        raise _fail(f"{name!r} is no name for a token: it is shown in lists and logs")
    files = LocalFiles(data)
    files.make_directory("")
    tokens = read_tokens(files)
    if any(token.name == name for token in tokens):
        raise _fail(f"there is a token named {name!r} already")
    try:
        text, token = Token.make(name, role, time.time())
    except ValueError as error:
        raise _fail(str(error)) from None
    files.replace(TOKENS_FILE, tokens_to_json([*tokens, token]))
    print(text)


@token_app.command("list")
def token_list(data: Data = Path("data")) -> None:
    """Lists the tokens' names and roles."""
    for token in read_tokens(_files_of(data)):
        print(f"{token.name}\t{token.role}\t{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(token.created))}")


@token_app.command("remove")
def token_remove(name: Annotated[str, typer.Argument()], data: Data = Path("data")) -> None:
    """Takes a token back. A running server forgets it at its next SIGHUP."""
    files = _files_of(data)
    tokens = read_tokens(files)
    kept = [token for token in tokens if token.name != name]
    if len(kept) == len(tokens):
        raise _fail(f"there is no token named {name!r}")
    files.replace(TOKENS_FILE, tokens_to_json(kept))


def _files_of(data: Path) -> LocalFiles:
    if not data.is_dir():
        raise _fail(f"{data} is no directory: name the server's with --data")
    return LocalFiles(data)


def main() -> None:
    """Runs the command. What goes wrong is one line, never a traceback."""
    reserve_standard_streams()
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except (JetError, OSError, TokensDamaged) as error:
        _end(error)


def _end(error: Exception) -> NoReturn:
    if isinstance(error, OSError):  # of an answer that nobody takes: what is still buffered would fail once more at our end
        os.dup2(os.pipe()[1], sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # whoever read it has read enough
        raise SystemExit(1)
    print(f"jetwired: {error}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
