"""`tlcore plugins` and `tlcore plugins show NAME`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.text import Text

from tlcore.errors import UnknownName
from tlcore.protocols import KINDS
from tlcore.registry import Entry, Registry
from tlcore.store import Store
from tlcore_flows.cli_errors import print_json
from tlcore_flows.cli_tables import console, table

__all__ = ["apps"]

_plugins = typer.Typer(
    add_completion=False, help="List the installed strategies, or show one with its options."
)
apps = {"plugins": _plugins}

_AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def _registry() -> Registry:
    """The registry, with its index where the store is; looking around makes no store."""
    root = Store.local_root()
    return Registry.discover(cache_folder=root if root.is_dir() else None)


@_plugins.callback(invoke_without_command=True)
def _list(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help=f"Only these: {', '.join(KINDS)}")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
    as_json: _AsJson = False,
    debug: _Debug = False,
) -> None:
    """List the installed strategies, or show one with its options."""
    if context.invoked_subcommand is not None:
        context.obj = as_json
        return
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind of strategy", kind, KINDS, where="--kind")
    entries = [entry for entry in _registry().entries if kind is None or entry.kind == kind]
    if as_json:
        print_json({"plugins": [_document(entry) for entry in entries]})
        return
    if markdown:
        print(_markdown(entries))
        return
    made = table("kind", "name", "what it does", "distribution")
    for entry in entries:
        good = entry.status == "ok"
        summary = entry.summary if good else f"{entry.status}: {entry.error}"
        cells = (entry.kind, entry.name, summary, f"{entry.distribution} {entry.version}")
        made.add_row(*(Text(cell) for cell in cells), style=None if good else "red")
    console().print(made)


def _markdown(entries: list[Entry]) -> str:
    lines = ["| kind | name | what it does |", "|---|---|---|"]
    for entry in entries:
        if entry.status == "ok":
            cells = (entry.kind, f"`{entry.name}`", entry.summary)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


@_plugins.command("show")
def _show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `tlcore plugins`.")],
    as_json: _AsJson = False,
    debug: _Debug = False,
) -> None:
    """Show a strategy: what it is, where it comes from, its options with bounds and defaults."""
    entries = _registry().entries
    found = [entry for entry in entries if entry.name == name]
    if not found:
        known = {entry.name for entry in entries if entry.name}
        raise UnknownName("strategy", name, known, hint="List them with: tlcore plugins")
    if as_json or context.obj:
        print_json({"plugins": [_document(entry) for entry in found]})
        return
    for entry in found:
        _print(entry)


def _print(entry: Entry) -> None:
    out = console()
    out.print(Text(f"{entry.kind} {entry.name}", style="bold"))
    out.print(Text(entry.summary))
    rows = {
        "reference": entry.reference,
        "licence": entry.licence,
        **_traits(entry.traits),
        "from": f"{entry.distribution} {entry.version}, {entry.module}",
        entry.status: entry.error,
    }
    for label, text in rows.items():
        if text:
            out.print(Text(f"  {label:<10} {text}"), soft_wrap=True)
    options = entry.schema.get("properties", {})
    if options:
        made = table("option", "type", "default", "meaning")
        required = entry.schema.get("required", [])
        for name, schema in options.items():
            default = "required" if name in required else _text(schema.get("default"))
            about = schema.get("description") or ""
            cells = (name, _type(schema, entry.schema.get("$defs", {})), default, about)
            made.add_row(*(Text(cell) for cell in cells))
        out.print(made)
    else:
        out.print(Text("  no options"))


_PROMISED = {
    "regression": "numbers", "multi-label": "tags", "partial": "missing target classes", "open": "new target classes",
}  # fmt: skip
_NOTED = {
    "costly": "costly", "target-only": "the network is for target images alone",
    "rotation-invariant": "unchanged by rotations of the features",
}  # fmt: skip


def _traits(traits: Iterable[str]) -> dict[str, str]:
    """Traits by what they say: what a strategy needs, what it is sound for besides classes, what it warns of."""
    known = sorted(traits)
    return {
        "needs": ", ".join(trait.replace("-", " ") for trait in known if trait not in {*_PROMISED, *_NOTED}),
        "also for": ", ".join(_PROMISED[trait] for trait in known if trait in _PROMISED),
        "note": ", ".join(_NOTED[trait] for trait in known if trait in _NOTED),
    }


def _text(value: Any) -> str:
    """A default as it is typed: "none" where nothing is set."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        more = f", and {len(value) - 2} more" if len(value) > 2 else ""
        return ", ".join(map(str, value[:2])) + more if value else "empty"
    return str(value) if value != {} else "empty"


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema's type and bounds in a few words."""
    if "$ref" in schema:
        return _type(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        kinds = [_type(part, definitions) for part in schema["anyOf"]]
        return " | ".join(sorted(kinds, key=lambda kind: kind == "none"))
    kind = _KINDS.get(str(schema.get("type")), str(schema.get("type", "any")))
    if kind == "list" and schema.get("items"):
        return f"list of {_type(schema['items'], definitions)}"
    return f"{kind} {_bounds(schema)}".strip()


_KINDS = {"null": "none", "string": "text", "array": "list", "object": "table", "boolean": "true | false"}


def _bounds(schema: dict[str, Any]) -> str:
    """ "1 to 1000"; an end that is left out, or is not there, is said with a sign."""
    if "minimum" in schema and "maximum" in schema:
        return f"{_end(schema['minimum'])} to {_end(schema['maximum'])}"
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {_end(schema[key])}" for key, sign in words.items() if key in schema)


def _end(bound: float) -> str:
    return f"{bound:g}" if abs(bound) < 1e4 else f"{bound:,.0f}"


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.summary,
        "reference": entry.reference,
        "licence": entry.licence,
        "traits": list(entry.traits),
        "distribution": entry.distribution,
        "version": entry.version,
        "module": entry.module,
        "status": entry.status,
        "error": entry.error,
        "options": entry.schema,
    }
