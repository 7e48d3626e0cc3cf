"""A page for a browser in one file: nothing from a network, and no script but our own.

What is in a page came from models, so a policy in the page itself forbids a browser all but its styles and the one
script whose hash it names: whatever else could look like a script is dead.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from graphopt.report.markup import Html, element

__all__ = ["document"]


def document(name: str, title: str, *body: Html) -> str:
    """The whole page.

    Args:
        name: of the style and the script beside this module. The page is XML as well if neither holds a < or an &.
        title: of the window.
        body: what is in it.
    """
    style, script = ((files("graphopt.report") / f"{name}.{kind}").read_text("utf-8") for kind in ("css", "js"))
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{known}'; base-uri 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="{policy}"/>
{element("title", title)}
<style>{style}</style>
</head>
<body>
{"".join(body)}
<script>{script}</script>
</body>
</html>
"""
