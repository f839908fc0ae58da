"""From a captured `onnx.ModelProto` to a file that can be handed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

__all__ = ["finish"]


def finish(model: Any, properties: Mapping[str, str]) -> bytes:
    """Strip what names the exporting machine, set the properties, check the model, serialise it.

    The same model and properties give the same bytes.

    Raises:
        onnx.checker.ValidationError: not a valid model.
    """
    _strip(model)
    for function in model.functions:
        _strip(function)
    _strip_graph(model.graph)
    onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(message: Any) -> None:
    message.ClearField("doc_string")
    message.ClearField("metadata_props")


def _strip_graph(graph: Any) -> None:
    """Take out documentation and stack traces (torch writes source lines with their paths), subgraphs too."""
    _strip(graph)
    for part in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node):
        _strip(part)
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for subgraph in (attribute.g, *attribute.graphs):
                if subgraph.node:
                    _strip_graph(subgraph)
