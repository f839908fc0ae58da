"""Stages that look at two domains through one network: its features, the gap between them, their picture."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from tlcore.evaluation.domain_gap import coral_distance, mmd, proxy_a_distance
from tlcore.stages.base import StageContext
from tlcore.stages.networks import build_network, load_network
from tlcore.stages.tables import load_table, pixels_for, preprocess_of, rows_of, target_sample
from tlcore.stages.values import AdaptedModel, CheckedData, Embedded, Trained
from tlcore.training.predict import embed, predict, predict_features
from tlcore.training.streams import draw_seed
from tlcore.values import TARGET, Candidate, Dataset, DomainGap, Point, Scatter

__all__ = ["embed_rows", "embedded_features", "gap", "scatter"]

_FEATURES = "features.npy"
_SAMPLE = 1000
"""Images of each domain that the gap is measured on: kernels and classifiers cost the square of it."""
_EXAMPLES = 6
_POINTS = 250
"""Images of each domain in the picture: more are a blot."""


def embed_rows(context: StageContext) -> Embedded:
    """The backbone's features of every row, by the network in the input "model", or where there is none by the
    pretrained one of the option "candidate". Strategy: source."""
    if context.refs("model"):
        base = context.read("model", Trained).checkpoint
        preprocess, network = base.preprocess, load_network(context, "model", base)
    else:
        candidate = Candidate.model_validate(context.option("candidate"))
        preprocess, network = preprocess_of(candidate), build_network(context, candidate, 1)
    pixels = pixels_for(context, preprocess)
    network = network.to(context.job.device).to(memory_format=torch.channels_last)
    shape = (len(pixels), network.backbone_dim)
    features = np.lib.format.open_memmap(
        context.work.folder / _FEATURES, mode="w+", dtype=np.float32, shape=shape
    )
    embed(
        network, pixels, np.arange(len(pixels)), preprocess, device=context.job.device, out=features,
        on_progress=lambda done, total: context.progress(done, total, "features of all images"),
    )  # fmt: skip
    features.flush()
    return Embedded(rows=shape[0], dim=shape[1])


def embedded_features(context: StageContext) -> NDArray[np.float32]:
    """float32 [rows, dim] of the input "embedded", mapped into memory."""
    features: NDArray[np.float32] = np.load(
        context.folder("embedded") / _FEATURES, mmap_mode="r", allow_pickle=False
    )
    return features


def gap(context: StageContext) -> DomainGap:
    """How far the target lies from the source, by the source-only model's features, before anything is adapted.

    Inputs: data, model, embedded. Strategy: source. Options: label_sets, declared, missing_classes, new_classes.
    """
    dataset = load_table(context.folder("data"), context.read("data", CheckedData))
    features, seed = embedded_features(context), context.job.seed
    target_rows = _some(rows_of(dataset, "train", TARGET), _SAMPLE, seed)
    target = np.asarray(features[target_rows])
    source_rows = _some(rows_of(dataset, "train", labelled=True), _SAMPLE, seed)
    source = np.asarray(features[source_rows])
    context.progress(0, 0, "measuring the gap between the domains")
    distance, error = proxy_a_distance(source, target, seed=seed)
    discrepancy = mmd(source, target, seed=seed)
    names = dataset.source_domains
    distances = {names[0]: distance} if len(names) == 1 else {}
    for name in names if len(names) > 1 else ():
        rows = _some(rows_of(dataset, "train", name, labelled=True), _SAMPLE, seed)
        distances[name] = proxy_a_distance(np.asarray(features[rows]), target, seed=seed)[0]
    labels = np.asarray(dataset.labels())
    sample = target_sample(dataset, _SAMPLE, seed)
    network = load_network(context, "model", context.read("model", Trained).checkpoint)
    predicted = predict_features(network, np.asarray(features[sample]))[1].argmax(1)
    tested = labels[rows_of(dataset, "test", TARGET, labelled=True)]
    copies = _copies(dataset)
    notes = []
    missing = (
        sorted(set(dataset.classes) - {dataset.classes[label] for label in tested}) if len(tested) else []
    )
    if missing and not context.option("declared"):
        notes.append(
            f"The labels of the target's test images name no {_listed(missing)}: where the whole target lacks them, "
            'say adapt.label_sets = "partial", and adapters that are not sound then are refused.'
        )
    return DomainGap(
        label_sets=context.option("label_sets"), declared=context.option("declared"),
        missing_classes=context.option("missing_classes"), new_classes=context.option("new_classes"),
        a_distance=distances, domain_error=error, coral=coral_distance(source, target), mmd=discrepancy.squared,
        mmd_p=discrepancy.p_value,
        source_shares=_shares(labels[rows_of(dataset, "train", labelled=True)], dataset.classes),
        predicted_shares=_shares(predicted, dataset.classes), label_shares=_shares(tested, dataset.classes),
        duplicates=len(copies), duplicate_examples=tuple(copies[:5]),
        source_examples=_examples(dataset, source_rows, seed), target_examples=_examples(dataset, target_rows, seed),
        notes=tuple(notes),
    )  # fmt: skip


def scatter(context: StageContext) -> Scatter:
    """The same images in the plane before and after: t-SNE of the head's inputs of either network.

    Inputs: data, pixels, model, embedded, adapted. Strategy: source.
    """
    dataset = load_table(context.folder("data"), context.read("data", CheckedData))
    base = context.read("model", Trained).checkpoint
    after = context.read("adapted", AdaptedModel).checkpoint
    seed = context.job.seed
    own = np.concatenate([rows_of(dataset, split, labelled=True) for split in ("val", "train")])
    target = np.concatenate([rows_of(dataset, "test", TARGET), target_sample(dataset, _POINTS, seed)])
    rows = np.concatenate([_some(own, _POINTS, seed), _some(target, _POINTS, seed)])
    context.progress(0, 2, "the features' picture")
    known = np.asarray(embedded_features(context)[rows])
    first = predict_features(load_network(context, "model", base), known)
    adapted = load_network(context, "adapted", after).to(context.job.device)
    pixels = pixels_for(context, after.preprocess)
    second = predict(adapted, pixels, rows, after.preprocess, device=context.job.device)
    context.progress(1, 2, "the features' picture")
    return Scatter(before=_points(*first, dataset, rows, seed), after=_points(*second, dataset, rows, seed))


def _points(
    features: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    dataset: Dataset,
    rows: NDArray[np.int64],
    seed: int,
) -> tuple[Point, ...]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = features.astype(np.float64)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    if min(values.shape) > 50:
        values = PCA(50, random_state=0).fit_transform(values)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    if len(rows) < 5 or not values.std() > 0:
        plane = np.zeros((len(rows), 2))
    else:
        draw = draw_seed(seed, "scatter") % 2**31
        plane = TSNE(2, perplexity=perplexity, init="pca", random_state=draw).fit_transform(values)
    labels, domains = np.asarray(dataset.without_target_labels().labels()), dataset.table["domain"]
    tested = rows_of(dataset, "test", TARGET)
    labels[tested] = np.asarray(dataset.labels())[tested]
    return tuple(
        Point(
            x=round(float(x), 3), y=round(float(y), 3), domain=domains[int(row)],
            label=dataset.classes[labels[row] if labels[row] >= 0 else int(p.argmax())],
        )
        for row, (x, y), p in zip(rows, plane, probabilities, strict=True)
    )  # fmt: skip


def _some(rows: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """At most `limit` of the rows, ascending."""
    if len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng([seed, 11]).choice(rows, limit, replace=False))


def _shares(labels: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, float]:
    if not len(labels):
        return {}
    counts = np.bincount(labels, minlength=len(classes))
    return {name: round(float(n / len(labels)), 4) for name, n in zip(classes, counts, strict=True)}


def _copies(dataset: Dataset) -> list[str]:
    """Files of the same bytes in a source domain and in the target, as "one = other"."""
    table = dataset.table.filter(pl.col("sha256") != "")
    target = (
        table.filter(pl.col("domain") == TARGET)
        .select("sha256", theirs="sample_id")
        .unique("sha256", keep="first")
    )
    both = table.filter(pl.col("domain") != TARGET).join(target, on="sha256").unique("sha256", keep="first")
    return [
        f"{own} = {theirs}"
        for own, theirs in both.sort("sample_id").select("sample_id", "theirs").iter_rows()
    ]


def _examples(dataset: Dataset, rows: NDArray[np.int64], seed: int) -> tuple[str, ...]:
    return tuple(dataset.table["uri"].gather(_some(rows, _EXAMPLES, seed)).to_list())


def _listed(names: list[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:5])
    return shown + (", …" if len(names) > 5 else "")
