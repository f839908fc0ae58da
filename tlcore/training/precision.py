"""bf16 or float32: measured on the step itself, and remembered."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from tlcore.training.depthwise import DepthwiseInFloat32

__all__ = ["Name", "Precision", "autocast", "choose_precision", "has_bf16"]

Name = Literal["fp32", "bf16"]
WORTH = 0.85
"""bf16 must take at most this share of float32's time."""
_NAME = "precision.json"
_ROUNDS = 3


@dataclass(frozen=True)
class Precision:
    """ratio: time of forward and backward in bf16 over that in float32; nan where it was not measured."""

    name: Name
    ratio: float
    why: str


def autocast(name: Name, device: torch.device | str) -> AbstractContextManager[Any]:
    """What a forward pass runs in. Weights stay float32 and are cast once per region."""
    kind = torch.device(device).type
    stack = ExitStack()
    stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=name == "bf16"))
    if name == "bf16" and kind == "cpu":
        stack.enter_context(DepthwiseInFloat32())
    return stack


def has_bf16(device: torch.device | str) -> bool:
    """Whether the hardware multiplies bf16 itself, so that asking for its speed can pay."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    able = _capabilities()
    return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def choose_precision(
    network: nn.Module,
    loss_step: Callable[[], Tensor],
    device: torch.device | str,
    *,
    architecture: str,
    shape: tuple[int, ...],
    folder: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Precision:
    """bf16 where it takes at most 0.85 of float32's time on this very step and finds the same loss, else float32.

    One pass of each to warm up, then three of each in turn, medians of forward and backward. In the first, without
    dropout, the loss in bf16 must be within 2 % or 0.02 of that in float32 and the gradient's norm within 10 %: a head
    of zeros has the same loss whatever comes before it, but not the same gradient. No weight changes; gradients are
    dropped; buffers and the random state end as they were.

    Args:
        network: all that the loss moves or keeps statistics in; a ModuleList where that is several.
        loss_step: the forward pass on one real batch, in training mode; a scalar with a graph.
        shape: of the batch. folder: decisions are kept in precision.json there and found again for the same
            architecture, shape, torch version and machine; what cannot be read counts as not there.
    """
    device = torch.device(device)
    if not has_bf16(device):
        return Precision("fp32", math.nan, f"this {device.type} device has no bf16 arithmetic")
    key = " | ".join([architecture, "x".join(map(str, shape)), torch.__version__, _machine(device)])
    known = _read(folder).get(key)
    if known is not None:
        return known
    decision = _decided(network, loss_step, device, clock)
    if folder is not None:
        _write(folder, {**_read(folder), key: decision})
    return decision


def _decided(
    network: nn.Module, loss_step: Callable[[], Tensor], device: torch.device, clock: Callable[[], float]
) -> Precision:
    seconds: dict[Name, list[float]] = {"fp32": [], "bf16": []}
    seen: dict[Name, tuple[float, float]] = {}
    names: tuple[Name, ...] = ("fp32", "bf16")
    for place in range(1 + _ROUNDS):
        for name in names:
            try:
                with _untouched(network, device), _without_chance(network) if not place else nullcontext():
                    loss, slope, taken = _pass(network, loss_step, name, device, clock)
            except RuntimeError as error:
                if name == "fp32":
                    raise
                return Precision("fp32", math.nan, f"bf16 cannot run it: {str(error).splitlines()[0][:120]}")
            if place:
                seconds[name].append(taken)
            else:
                seen[name] = loss, slope
    ratio = statistics.median(seconds["bf16"]) / statistics.median(seconds["fp32"])
    (exact, slope), (rough, rough_slope) = seen["fp32"], seen["bf16"]
    if not abs(rough - exact) <= max(0.02 * abs(exact), 0.02):
        return Precision("fp32", ratio, f"bf16's loss is {rough:.4g}, float32's {exact:.4g}")
    if not abs(rough_slope - slope) <= 0.1 * slope:
        return Precision("fp32", ratio, f"bf16's gradient has norm {rough_slope:.4g}, float32's {slope:.4g}")
    if ratio > WORTH:
        return Precision(
            "fp32", ratio, f"bf16 takes {ratio:.2f} of float32's time; more than {WORTH} is not worth it"
        )
    return Precision("bf16", ratio, f"bf16 takes {ratio:.2f} of float32's time")


def _pass(
    network: nn.Module, loss_step: Callable[[], Tensor], name: Name, device: torch.device, clock: Callable[[], float],
) -> tuple[float, float, float]:  # fmt: skip
    """The loss, the gradient's norm, and the seconds of forward and backward."""
    network.zero_grad(set_to_none=True)
    _wait(device)
    started = clock()
    with autocast(name, device):
        loss = loss_step()
    loss.backward()  # type: ignore[no-untyped-call]
    _wait(device)
    taken = clock() - started
    slopes = [value.grad for value in network.parameters() if value.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(slopes)) if slopes else 0.0
    network.zero_grad(set_to_none=True)
    return loss.item(), norm, taken


@contextmanager
def _without_chance(network: nn.Module) -> Iterator[None]:
    """Dropout and stochastic depth off: they draw other masks in bf16, and their noise is no disagreement."""
    from timm.layers import DropPath

    random = [
        module
        for module in network.modules()
        if isinstance(module, (_DropoutNd, DropPath)) and module.training
    ]
    for module in random:
        module.eval()
    try:
        yield
    finally:
        for module in random:
            module.train()


@contextmanager
def _untouched(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Buffers and random state end as they began."""
    buffers = [(value, value.detach().clone()) for value in network.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for value, before in buffers:
                    value.copy_(before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _capabilities().get("cpu_name") or platform.processor()
    able = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {name} {able} {torch.get_num_threads()} threads"


def _capabilities() -> Mapping[str, Any]:
    found = getattr(torch.cpu, "get_capabilities", None)
    if found is not None:
        return cast(Mapping[str, Any], found())
    # an older torch says it in private alone
    flags = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return {name: bool(getattr(torch.cpu, asked, bool)()) for name, asked in flags.items()}


def _read(folder: Path | None) -> dict[str, Precision]:
    """The decisions that can be read; none of a file that is broken or of another kind."""
    if folder is None:
        return {}
    try:
        found = json.loads((folder / _NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {key: one for key, entry in found.items() if (one := _entry(entry))}
        if isinstance(found, dict)
        else {}
    )


def _entry(entry: Any) -> Precision | None:
    if not isinstance(entry, dict) or entry.get("name") not in ("fp32", "bf16"):
        return None
    ratio, why = entry.get("ratio"), entry.get("why")
    if not isinstance(why, str) or not (ratio is None or isinstance(ratio, (int, float))):
        return None
    return Precision(entry["name"], math.nan if ratio is None else float(ratio), why)


def _write(folder: Path, decisions: Mapping[str, Precision]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        key: {
            "name": one.name,
            "ratio": None if math.isnan(one.ratio) else round(one.ratio, 4),
            "why": one.why,
        }
        for key, one in decisions.items()
    }
    part = folder / f".{_NAME}.{os.getpid()}"
    try:
        part.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n", "utf-8")
        part.replace(folder / _NAME)
    except OSError:
        pass  # the next run measures again
    finally:
        part.unlink(missing_ok=True)
