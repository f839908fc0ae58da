"""Whether this machine has the device that a run asks for."""

from __future__ import annotations

from tlcore.errors import UserError

__all__ = ["check"]


def check(device: str) -> None:
    """Look for "cuda", "cuda:N" or "mps"; "cpu" is always there and does not import torch.

    Raises:
        UserError: torch does not find it.
    """
    if device == "cpu":
        return
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    if torch.backends.mps.is_available():
        found.append("mps")
    if device in found:
        return
    if device.startswith("cuda") and torch.version.cuda is None:
        reason = "the installed torch was built without CUDA"
    else:
        reason = "torch finds no such device on this machine"
    raise UserError(
        f'"{device}" cannot be used: {reason}', where="device", choices=found, hint="--device cpu"
    )
