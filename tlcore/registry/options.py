"""What pydantic found wrong with a strategy's options, as one error that a person can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcore.errors import UnknownName, UserError
from tlcore.registry.entry import short

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from tlcore.protocols import Strategy

__all__ = ["explain"]


def explain(error: ValidationError, cls: type[Strategy], title: str, where: str) -> UserError:
    """One UserError for all findings: option, value, bound and what the option means.

    Args:
        title: who the options belong to, as a person says it: 'scorer "logme"'.
        where: where they stand: "run.toml [finetune]"; the title where it is empty.

    Returns: an UnknownName where the only fault is one unknown option, so that its nearest is offered.
    """
    known = tuple(cls.model_fields)
    found = error.errors(include_url=False)
    unknown = [_name(detail) for detail in found if detail["type"] == "extra_forbidden"]
    hint = "" if known else f"{title} takes no options: leave them out"
    if len(found) == 1 and len(unknown) == 1 and len(found[0]["loc"]) == 1:
        return UnknownName(f"option of {title}", unknown[0], known, where=where, hint=hint)
    text = "; ".join(_sentence(detail, cls, title) for detail in found)
    return UserError(text, where=where, choices=known if unknown else (), hint=hint)


def _sentence(detail: ErrorDetails, cls: type[Strategy], title: str) -> str:
    name = _name(detail)
    if not name:
        return f"options of {title}: {_message(detail)}"
    if detail["type"] == "missing":
        text = f'option "{name}" of {title} is required'
    elif detail["type"] == "extra_forbidden":
        return str(UnknownName(f"option of {title}", name, cls.model_fields)).partition("\n")[0]
    else:
        text = f'option "{name}" of {title} is {short(repr(detail["input"]))}: {_message(detail)}'
    return text + _meaning(cls, str(detail["loc"][0]))


def _name(detail: ErrorDetails) -> str:
    return ".".join(str(part) for part in detail["loc"])


def _message(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text.replace("Input should", "it should", 1)


def _meaning(cls: type[Strategy], name: str) -> str:
    field = cls.model_fields.get(name)
    if field is None:
        return ""
    default = "" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
    parts = [part for part in (field.description, default) if part]
    return f" ({'; '.join(parts)})" if parts else ""
