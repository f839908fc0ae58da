"""What this machine offers to engines."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from tlcore.values import Json

__all__ = ["Hardware"]

Bf16 = Literal["none", "avx512", "matrix"]


@dataclass(frozen=True)
class Hardware:
    """A device, as far as the choice of an engine depends on it.

    Attributes:
        device: "cpu", "cuda" or "mps".
        bf16: "none": no multiplication of bfloat16 in hardware; "avx512": vector instructions (AVX512_BF16, about
            twice the speed of float32); "matrix": matrix units (AMX, tensor cores).
        onnxruntime: installed.
        compiler: a C++ compiler for torch.compile.
    """

    device: str
    bf16: Bf16
    onnxruntime: bool
    compiler: bool

    @classmethod
    def of(cls, device: str | torch.device) -> Hardware:
        """The hardware behind a torch device of this process."""
        kind = torch.device(device).type
        installed = importlib.util.find_spec("onnxruntime") is not None
        return cls(kind, _bf16(kind), installed, _compiler())

    def facts(self) -> dict[str, Json]:
        """All but the device, as JSON: what a job carries, so that every worker chooses as if it ran here."""
        return {"bf16": self.bf16, "onnxruntime": self.onnxruntime, "compiler": self.compiler}

    def with_facts(self, facts: Mapping[str, Any]) -> Hardware:
        """The hardware of `facts` behind this device."""
        return replace(self, **facts)


def _bf16(kind: str) -> Bf16:
    if kind == "cuda":
        if not torch.cuda.is_available():
            return "matrix"  # it is in a worker on another machine: every one since 2020 has it
        return "matrix" if torch.cuda.is_bf16_supported(including_emulation=False) else "none"
    if kind == "mps":
        return "matrix" if torch.backends.mps.is_macos_or_newer(14, 0) else "none"
    # Emulated bfloat16 is slower than float32, so the instructions must be there, and oneDNN that uses them.
    if kind != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "none"
    found = torch.cpu.get_capabilities()
    if found.get("amx_bf16"):
        return "matrix"
    return "avx512" if found.get("avx512_bf16") else "none"


@functools.cache
def _compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)
