"""Whether a server is ready. `python -m jetwire_server.health [HOST:PORT]` for container engines, which ask every few seconds:
it loads nothing of the server. `jetwired health` says the same.
"""

from __future__ import annotations

import ssl
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection

DEFAULT = "127.0.0.1:3730"
_SECONDS = 3.0


def ask(http: str, *, tls: bool = False) -> tuple[bool, str]:
    """Whether the server at HOST:PORT is ready, and what it says or why it cannot be asked. A certificate is not looked at."""
    try:
        connection = (
            HTTPSConnection(http, timeout=_SECONDS, context=ssl._create_unverified_context())
            if tls
            else HTTPConnection(http, timeout=_SECONDS)
        )
        connection.request("GET", "/readyz", headers={"Host": "localhost"})
        answer = connection.getresponse()
        return answer.status == HTTPStatus.OK, answer.read().decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        return False, f"{http}: {error}"


def main() -> None:
    ready, said = ask(*sys.argv[1:2] or [DEFAULT])
    print(said)
    raise SystemExit(0 if ready else 1)


if __name__ == "__main__":
    main()
