"""Stages that write the file and hold it against the model."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.data.images import open_rgb, to_pixels
from tlcore.export.gate import check_metadata, check_parity, enforce, select_images
from tlcore.export.output_parity import check_answers, enforce_answers
from tlcore.export.session import FileSession
from tlcore.protocols import Exporter, ExportJob
from tlcore.stages.base import StageContext
from tlcore.stages.networks import load_network
from tlcore.stages.tables import load_table, pixels_for, rows_of
from tlcore.stages.values import AdaptedModel, CheckedData, Trained
from tlcore.training.network import Network
from tlcore.training.predict import predict
from tlcore.values import SOURCE, TARGET, Checkpoint, Exported, Parity

__all__ = ["checkpoint_of", "export", "parity", "strategy_of", "temperature_of"]

_BATCH = 64


def checkpoint_of(context: StageContext, name: str) -> Checkpoint:
    """The checkpoint in an input that is a `train` or an `adapt` result."""
    if context.ref(name).stage == "adapt":
        return context.read(name, AdaptedModel).checkpoint
    return context.read(name, Trained).checkpoint


def strategy_of(context: StageContext) -> str:
    """What made the model: a tuner's name, and "TUNER+ADAPTER" of an adapted one whose start is an input too."""
    name, start = checkpoint_of(context, "model").strategy, "baseline:source-only"
    adapted = context.ref("model").stage == "adapt" and start in context.job.inputs
    return f"{checkpoint_of(context, start).strategy}+{name}" if adapted else name


def temperature_of(context: StageContext, checkpoint: Checkpoint) -> float:
    """What the logits of the exported file are divided by. Option: calibrate (default: yes); off: 1."""
    return checkpoint.temperature if context.job.options.get("calibrate", True) else 1.0


def export(context: StageContext) -> Exported:
    """Write the chosen network to a file. Strategies: source, exporter. Option: calibrate (default: yes).

    Provenance goes into the file's metadata.
    """
    checkpoint = checkpoint_of(context, "model")
    network = load_network(context, "model", checkpoint)
    context.progress(0, 0, "writing and proving the graph")
    candidate = checkpoint.candidate
    metadata = {
        **context.job.provenance,
        "source_model": candidate.name, "architecture": candidate.architecture, "licence": candidate.licence,
        "pretrained_on": candidate.pretrained_on, "strategy": checkpoint.strategy,
        "data_fingerprint": context.read("data", CheckedData).fingerprint, "torch_version": torch.__version__,
    }  # fmt: skip
    exporter = cast(Exporter, context.build("exporter"))
    return exporter.export(
        ExportJob(
            network,
            checkpoint.preprocess,
            checkpoint.classes,
            metadata,
            context.work.folder,
            temperature=temperature_of(context, checkpoint),
            task=checkpoint.task,
        )  # fmt: skip
    )


def parity(context: StageContext) -> Parity:
    """The file against the network on real images. Options: tolerance, max_pixels, calibrate (default: yes).
    Strategies: source, exporter.

    The network sees the pixels that training saw. The file sees the image files anew, prepared by the rule
    that is saved in the file, so that a wrong rule shows as a difference.

    Raises:
        GateError: they differ; nothing is promoted.
    """
    checkpoint, exported = checkpoint_of(context, "model"), context.read("file", Exported)
    dataset = load_table(context.folder("data"), context.read("data", CheckedData))
    # With a target its images come first; nothing is chosen here, so its labels may be counted.
    domains = (TARGET, SOURCE) if dataset.has_target else (SOURCE,)
    validation = [int(row) for domain in domains for row in rows_of(dataset, "val", domain)]
    others = [
        int(row)
        for split in ("test", "train")
        for domain in domains
        for row in rows_of(dataset, split, domain)
    ]
    rows = np.array(select_images(validation, others), dtype=np.int64)
    path = context.folder("file") / exported.path
    preprocess, temperature = checkpoint.preprocess, temperature_of(context, checkpoint)
    if exported.format == "onnx":
        found = FileSession(path).metadata
        check_metadata(
            found, preprocess, checkpoint.classes, temperature, checkpoint.task, where=exported.path
        )
        preprocess = found.preprocess
    uris = dataset.table["uri"].gather(rows).to_list()
    exporter = cast(Exporter, context.build("exporter"))
    answers = []
    for start in range(0, len(rows), _BATCH):
        images = [
            to_pixels(open_rgb(uri, max_pixels=context.option("max_pixels")), preprocess)
            for uri in uris[start : start + _BATCH]
        ]
        answers.append(exporter.predict(path, np.stack(images)))
        context.progress(min(start + _BATCH, len(rows)), len(rows), "file against model")
    network = load_network(context, "model", checkpoint)
    features, expected = predict(
        network, pixels_for(context, checkpoint.preprocess), rows, checkpoint.preprocess
    )
    if temperature != 1:  # from logits: a probability that float32 rounds to 0 has lost its own
        expected = _at_temperature(network, features, temperature)
    ids = dataset.table["sample_id"].gather(rows).to_list()
    if checkpoint.task != "classification":
        got, tolerance = np.concatenate(answers), context.option("tolerance")
        proof = check_answers(expected, got, ids, checkpoint.task, tolerance=tolerance)
        enforce_answers(proof, expected, got, ids, where=exported.path)
        return proof
    labels = [dataset.labels()[row] for row in rows]
    result = check_parity(
        expected, np.concatenate(answers), labels, ids, tolerance=context.option("tolerance")
    )
    enforce(result, expected, np.concatenate(answers), ids, checkpoint.classes, where=exported.path)
    return result


def _at_temperature(
    network: Network, features: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """softmax(head(x) / T) float32 [n, K] of the head's inputs x."""
    with torch.inference_mode():
        logits = network.head(torch.from_numpy(features))
        answers: NDArray[np.float32] = torch.softmax(logits / temperature, dim=1).numpy()
    return answers
