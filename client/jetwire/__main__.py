"""The `jetwire` command."""

from __future__ import annotations


def main() -> None:
    raise SystemExit("jetwire: not built yet")


if __name__ == "__main__":
    main()
