"""The registry: what is installed, whether it keeps its contract, and building it from {name, options}.

entry.py     what is known of a strategy without importing it
hooks.py     one module's hooks, called through pluggy
contract.py  checks what the hooks return
locate.py    installed distributions to plugin modules, without importing them
index.py     the above remembered in one file
options.py   pydantic's findings as one error
observers.py  called one by one
registry.py  find, load, build, identity
"""

from __future__ import annotations

from tlcore.registry.entry import Entry, Status
from tlcore.registry.registry import Registry

__all__ = ["Entry", "Registry", "Status"]
