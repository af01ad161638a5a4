"""The page at `/docs`: the routes with their fields and examples, from the OpenAPI description.

FastAPI's own pages load their scripts from elsewhere, so they stay empty where there is no network,
and a policy that allows them would allow much else. This one is plain HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
pre { background: #8882; padding: .6rem; overflow-x: auto } h2 { margin-top: 2rem }
td, th { text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0 }
"""


def render(described: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description, as ``app.openapi()`` gives it."""
    info = described["info"]
    routes = "".join(
        _route(path, method, route, described)
        for path, methods in described["paths"].items()
        for method, route in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}'
        f"</title><style>{_STYLE}</style></head><body><h1>{escape(info['title'])}</h1>"
        f"<pre>{escape(info.get('description', '').strip())}</pre>"
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{routes}</body></html>"
    )


def _route(path: str, method: str, route: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    bodies = list(_schemas(content.get("schema", {}), described))
    examples = [each["value"] for each in content.get("examples", {}).values()]
    examples += [each for body in bodies for each in body.get("examples", [])]
    shown = "".join(f"<pre>{escape(_curl(path, each))}</pre>" for each in examples)
    statuses = ", ".join(route.get("responses", {}))
    return (
        f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(route.get('description', ''))}</p>"
        f"{''.join(map(_fields, bodies))}{shown}<p>Answers with {escape(statuses)}.</p>"
    )


def _fields(schema: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>" if rows else ""


def _curl(path: str, body: object) -> str:
    return (
        f"curl -s localhost:8000{path} -H 'Content-Type: application/json' -d"
        f" '{json.dumps(body, ensure_ascii=False)}'"
    )


def _schemas(
    schema: Mapping[str, Any], described: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """The objects that a schema names, each once: itself, or those of its alternatives."""
    found: dict[str, Mapping[str, Any]] = {}

    def look(part: Mapping[str, Any]) -> None:
        if name := part.get("$ref"):
            key = name.rpartition("/")[2]
            found.setdefault(key, described["components"]["schemas"][key])
        for inner in (*part.get("anyOf", ()), *part.get("oneOf", ()), part.get("items")):
            if inner:
                look(inner)

    look(schema)
    yield from found.values()
