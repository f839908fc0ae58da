"""What a candidate costs, without its weights: parameters, multiply-accumulates, size of its file.

Networks are built on torch's meta device, where tensors have shapes and no memory.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
from timm.models import model_entrypoint
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tlcore.errors import UserError
from tlcore.models.build import create_network, shipped_with_timm
from tlcore.models.sizes import Size, size_in_table
from tlcore.values import Candidate, Preprocess

__all__ = ["measure_size", "measured_size", "size_of", "with_size"]

NODE_BYTES = 90
"""An operator in the file: its name, the names of its inputs and outputs, their shapes."""

TENSOR_BYTES = 230
"""A stored tensor beside its numbers: its name, again where it is used, and its shape."""

_PADDED = ("timm.models.efficientnet", "timm.models.mobilenetv3")
"""Modules of timm whose networks take `pad_type`: it moves pixels, and changes no size."""


def with_size(candidate: Candidate) -> Candidate:
    """`candidate` with params, gmacs and onnx_bytes filled in.

    Raises:
        UserError: nobody registered the architecture, or it refuses its arguments.
    """
    return candidate.model_copy(update=size_of(candidate)._asdict())


def size_of(candidate: Candidate) -> Size:
    """The size from the table of timm's architectures, and where that has none, measured on the meta device.

    Raises:
        UserError: nobody registered the architecture, or it refuses its arguments.
    """
    preprocess = candidate.preprocess
    if preprocess is None:
        raise UserError("the candidate says no input size", where=candidate.name)
    if _as_timm_builds_it(candidate):
        found = size_in_table(candidate.architecture, preprocess.height, preprocess.width)
        if found is not None:
            return found
    try:
        arguments = json.dumps(candidate.arguments, sort_keys=True)
        return measured_size(candidate.architecture, preprocess.height, preprocess.width, arguments=arguments)
    except UserError as error:
        # The measurement is shared by all candidates of an architecture: the error is about this one.
        raise UserError(error.what, where=candidate.name, choices=error.choices, hint=error.hint) from error


def measure_size(network: nn.Module, height: int, width: int) -> Size:
    """The size of a network on the meta device that takes float [1, 3, height, width].

    Multiply-accumulates are those of convolutions, matrix products and attention; normalisation, activations
    and pooling are not counted. A network whose way depends on values cannot be followed without them: its
    gmacs and onnx_bytes are None.

    onnx_bytes = 4 (parameters + buffers) - 4 * 3 C + 90 operators + 230 tensors: a batch norm of C channels
    behind a convolution is folded into it when the file is written, and of its four vectors one stays.
    """
    params = sum(parameter.numel() for parameter in network.parameters())
    network.requires_grad_(
        False
    )  # the counter follows gradients, and stumbles over a parameter that is an input
    flops, operators = FlopCounterMode(display=False), _Operators()
    image = torch.empty(1, 3, height, width, device="meta")
    try:
        # The counter knows no formula for some fused attention kernels: as plain products all of it is counted.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), flops, operators:
            network(image)
    except Exception:  # noqa: BLE001 - a network may do anything; what is known without its forward pass stays
        return Size(params, None, None)
    norms = [module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    stored = [*network.parameters(), *(buffer for buffer in network.buffers() if buffer.is_floating_point())]
    numbers = sum(tensor.numel() for tensor in stored) - 3 * sum(norms)
    around = NODE_BYTES * max(operators.count - len(norms), 0) + TENSOR_BYTES * (len(stored) - 3 * len(norms))
    return Size(params, flops.get_total_flops() / 2e9, 4 * numbers + around)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts the operators that a network calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _as_timm_builds_it(candidate: Candidate) -> bool:
    """Whether the network is timm's own, as large as without arguments."""
    if not shipped_with_timm(candidate.architecture):
        return False
    if not candidate.arguments:
        return True
    return (
        set(candidate.arguments) == {"pad_type"}
        and model_entrypoint(candidate.architecture).__module__ in _PADDED
    )


@functools.lru_cache(maxsize=4096)
def measured_size(architecture: str, height: int, width: int, *, arguments: str = "{}") -> Size:
    """The size of an architecture, measured on the meta device; `arguments` of timm.create_model as JSON.

    Raises:
        UserError: nobody registered the architecture, or it refuses its arguments.
    """
    candidate = Candidate(
        name=architecture,
        source={},
        architecture=architecture,
        arguments=json.loads(arguments),
        preprocess=Preprocess(height=height, width=width),
    )
    with torch.device("meta"):
        network = create_network(candidate, classes=0)
    return measure_size(network, height, width)
