"""The page at /console: what is served here and where the rest is."""

from __future__ import annotations

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Jetwire</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em }</style>
<h1>Jetwire</h1>
<p>This server answers JSON-RPC 2.0 at <code>/rpc</code>, by POST and by WebSocket.</p>
<ul>
<li><a href="/openrpc.json">The methods</a>, as an OpenRPC document</li>
<li><a href="/metrics">The metrics</a>, for Prometheus</li>
<li><a href="/readyz">Whether it is ready</a></li>
</ul>
<p>A console to look into tables with is not built yet. The command <code>jetwire</code> is.</p>
</html>
"""


def console_page() -> tuple[str, str]:
    return "text/html", _PAGE
