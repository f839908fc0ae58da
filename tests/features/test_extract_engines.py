"""Every engine against the plain network, and what happens where one does not do."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tlcore.errors import UnknownName, UserError
from tlcore.features.engines import choice
from tlcore.features.engines.agreement import disagreement
from tlcore.features.engines.choice import ENGINES, check_engine, missing, prepare, to_try
from tlcore.features.engines.graph import feature_graph
from tlcore.features.engines.hardware import Hardware
from tlcore.features.engines.work import Work
from tlcore.features.extract import ExtractedFeatures, extract
from tlcore.features.normalisation import normalise, normalised_rows
from tlcore.values import Preprocess

PREPROCESS = Preprocess(height=64, width=64)
HERE = Hardware.of("cpu")
ODD = Preprocess(height=21, width=35, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def _network(name: str, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, **arguments).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network


def _pixels(n: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def _plain(network: nn.Module, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = normalise(torch.from_numpy(pixels), PREPROCESS).contiguous()
    with torch.no_grad():
        features = network.forward_head(network.forward_features(images), pre_logits=True)
        return features.numpy(), network(images).softmax(1).numpy()


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _need(engine: str) -> None:
    reason = missing(engine, HERE)
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("engine", "architecture"),
    [
        ("eager", "test_resnet"),
        ("folded", "test_efficientnet"),
        ("bf16", "test_efficientnet"),
        ("bf16", "test_vit"),
        ("bf16", "test_convnext"),
        pytest.param("onnxruntime", "test_resnet", marks=pytest.mark.slow),
        pytest.param("onnxruntime", "test_vit", marks=pytest.mark.slow),
        pytest.param("compiled", "test_resnet", marks=pytest.mark.slow),
    ],
)
def test_an_engine_gives_the_features_and_probabilities_of_the_plain_network(
    engine: str, architecture: str
) -> None:
    _need(engine)
    network = _network(architecture, **({"img_size": 64} if "vit" in architecture else {}))
    pixels = _pixels(21)
    found = extract(network, pixels, PREPROCESS, head=True, batch_size=8, engine=engine)
    features, probabilities = _plain(network, pixels)
    reduced = engine in ("bf16", "compiled") and HERE.bf16 != "none"
    assert (found.engine, found.note) == (engine, "")
    assert _cosines(found.features, features).min() > (0.999 if reduced else 0.999999)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, probabilities, atol=0.02 if reduced else 1e-5)
    assert found.features.dtype == found.probabilities.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "bf16", "folded"])
def test_no_engine_changes_the_callers_network(engine: str) -> None:
    _need(engine)
    network = _network("test_vit", img_size=64).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    switches = [getattr(module, "fused_attn", None) for module in network.modules()]
    extract(network, _pixels(3), PREPROCESS, head=True, engine=engine)
    after = network.state_dict()
    assert network.training and all(torch.equal(before[name], after[name]) for name in before)
    assert switches == [getattr(module, "fused_attn", None) for module in network.modules()]


class _Fused(TorchFunctionMode):
    """Sees whether torch's fused attention is called."""

    seen = False

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen |= func is nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def test_attention_in_bfloat16_is_taken_apart_only_where_the_processor_has_no_matrix_unit() -> None:
    _need("bf16")
    images = torch.zeros(2, 3, 64, 64)
    graph = feature_graph(_network("test_vit", img_size=64), images[:1], head=False)
    answers = []
    for bf16, matrix in (("avx512", 100), ("matrix", 100), ("avx512", 2**24)):
        hardware = dataclasses.replace(HERE, bf16=bf16)
        way = prepare("bf16", graph, images, Work(attention_matrix=matrix), 2, hardware)
        with _Fused() as fused:
            way.run(images.bfloat16())
        answers.append(fused.seen)
    assert answers == [False, True, True]


def test_an_unknown_engine_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match='no engine named "bf61"; did you mean "bf16"') as raised:
        extract(_network("test_resnet"), _pixels(1), PREPROCESS, head=False, engine="bf61")
    assert set(ENGINES) < set(raised.value.choices)


@pytest.mark.parametrize(
    ("engine", "change", "reason"),
    [
        ("bf16", {"bf16": "none"}, "multiplies no bfloat16"),
        ("onnxruntime", {"onnxruntime": False}, "not installed"),
        ("onnxruntime", {"device": "cuda"}, "runs on the CPU, not on cuda"),
        ("compiled", {"device": "mps"}, "runs on the CPU, not on mps"),
        ("compiled", {"compiler": False}, "no C.. compiler"),
    ],
)
def test_an_engine_that_cannot_run_here_is_refused_and_never_chosen(
    engine: str, change: dict[str, object], reason: str
) -> None:
    hardware = dataclasses.replace(HERE, **change)
    with pytest.raises(UserError, match=reason) as raised:
        check_engine(engine, hardware)
    assert engine not in raised.value.choices and "auto" in raised.value.choices
    work = Work(dense=1, depthwise=1, linear=1, norm=0.1, elementwise=0.1)
    assert all(engine not in to_try("auto", work, n, hardware) for n in (1, 10**4, 10**8))


class _Shaky(nn.Module):
    """A network of timm's shape with one channel, and a fault of choice."""

    num_classes = 0
    num_features = 4

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.conv, self.fault = nn.Conv2d(3, 4, 3), fault

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        reduced = x.dtype == torch.bfloat16
        if self.fault == "raises" and reduced:
            raise RuntimeError("no kernel for BFloat16")
        x = self.conv(x)
        if self.fault == "turns" and reduced:
            return x.flip(1)
        if self.fault == "grows" and reduced:
            return x * 1.5
        if self.fault == "late" and reduced and len(x) < 16:
            return x / 0
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x.mean((2, 3))

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raises", "bf16: failed at image 0 .no kernel for BFloat16."),
        ("turns", r"bf16: cosine .* with eager float32 for image \d+, 0.995 is needed"),
        ("grows", r"bf16: features of image \d+ are 1\.\d{3} times as long as with eager float32"),
        ("late", "bf16: its features are NaN or infinite in images 16 to 19"),
    ],
)
def test_an_engine_that_fails_is_left_for_the_next_and_the_note_says_why(fault: str, reason: str) -> None:
    _need("bf16")
    torch.manual_seed(0)
    network = _Shaky(fault).eval()
    seen: list[tuple[int, int]] = []
    found = extract(
        network,
        _pixels(20),
        PREPROCESS,
        head=False,
        batch_size=16,
        engine="bf16",
        on_progress=lambda done, n: seen.append((done, n)),
    )
    assert found.engine == "folded"
    assert re.fullmatch(f"{reason}; computed by folded", found.note)
    with torch.no_grad():
        plain = network.forward_head(
            network.forward_features(normalise(torch.from_numpy(_pixels(20)), PREPROCESS))
        )
    np.testing.assert_allclose(found.features, plain.numpy(), rtol=1e-4, atol=1e-6)
    assert seen[-1] == (20, 20)


def test_a_set_up_that_raises_is_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcore.features.engines import onnx_runtime

    def broken(*args: object) -> None:
        raise OSError("no space left\nsecond line")

    monkeypatch.setattr(onnx_runtime, "onnx_runtime", broken)
    found = extract(_network("test_resnet"), _pixels(3), PREPROCESS, head=True, engine="onnxruntime")
    assert found.engine == "folded" and found.folded > 0
    assert found.note == "onnxruntime: cannot be set up (no space left); computed by folded"


@pytest.mark.slow
def test_a_shard_is_done_by_the_engine_that_pays_off_for_the_whole() -> None:
    network, pixels = _network("test_resnet"), _pixels(3)
    alone = extract(network, pixels, PREPROCESS, head=False).engine
    shard = extract(network, pixels, PREPROCESS, head=False, planned=10**9).engine
    assert alone not in ("onnxruntime", "compiled") and shard in ("onnxruntime", "compiled")


def test_what_progress_raises_stops_the_work() -> None:
    class Stop(Exception):
        pass

    def stop(done: int, n: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        extract(_network("test_resnet"), _pixels(3), PREPROCESS, head=False, on_progress=stop)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_rows_are_normalised_in_one_pass_as_by_the_formula(dtype: torch.dtype, channels_last: bool) -> None:
    pixels, rows = _pixels(9, 21, 35), np.array([8, 0, 3, 3, 7, 1])
    pixels.flags.writeable = False
    found = normalised_rows(pixels, rows, ODD, dtype=dtype, channels_last=channels_last)
    wanted = (pixels[rows] / 255 - np.array(ODD.mean)) / np.array(ODD.std)
    step = 2**-8 if dtype == torch.bfloat16 else 1e-6  # half a unit of the last of 8 bits
    np.testing.assert_allclose(found.float().numpy(), wanted.transpose(0, 3, 1, 2), rtol=step, atol=1e-6)
    order = torch.channels_last if channels_last else torch.contiguous_format
    assert found.dtype == dtype and found.is_contiguous(memory_format=order)


def test_agreement_looks_at_angle_length_probabilities_and_shape_of_every_image() -> None:
    rng = np.random.default_rng(0)
    f, p = rng.normal(size=(16, 8)).astype(np.float32), rng.dirichlet(np.ones(3), 16).astype(np.float32)
    assert disagreement((f, p), (f, p), reduced=False) == ""
    longer = f.copy()
    longer[3] *= 1.03
    assert "features of image 3 are 1.030" in disagreement((longer, p), (f, p), reduced=False)
    assert disagreement((longer, p), (f, p), reduced=True) == ""
    across = f.copy()
    across[5] = np.roll(f[5], 1)
    assert "for image 105" in disagreement((across, None), (f, None), reduced=True, first=100)
    # cos = 0.99: a perpendicular part of tan(acos 0.99) = 0.1425 times the length
    side = rng.normal(size=8)
    side -= (side @ f[7]) / (f[7] @ f[7]) * f[7]
    turned = f.copy()
    turned[7] += (0.1425 * np.linalg.norm(f[7]) * side / np.linalg.norm(side)).astype(np.float32)
    turned[7] *= np.linalg.norm(f[7]) / np.linalg.norm(turned[7])
    assert "cosine 0.9900" in disagreement((turned, None), (f, None), reduced=True)
    assert "shape [16, 7]" in disagreement((f[:, :7], None), (f, None), reduced=True)
    assert "no source probabilities" in disagreement((f, None), (f, p), reduced=True)
    assert "source probability differs by" in disagreement((f, np.roll(p, 1, axis=1)), (f, p), reduced=True)
    broken = f.copy()
    broken[2, 2] = np.inf
    assert "NaN or infinite" in disagreement((broken, None), (f, None), reduced=True)


def test_an_image_without_features_agrees_only_with_none() -> None:
    zero, some = np.zeros((2, 4), np.float32), np.array([[0, 0, 0, 0], [1, 0, 0, 0]], np.float32)
    assert disagreement((zero, None), (zero, None), reduced=False) == ""
    assert "cosine" in disagreement((some, None), (zero, None), reduced=False)
    assert "cosine" in disagreement((zero, None), (some, None), reduced=False)


def test_extracted_features_name_their_engine() -> None:
    found = extract(_network("test_resnet"), _pixels(2), PREPROCESS, head=False)
    assert isinstance(found, ExtractedFeatures) and found.engine in choice.ENGINES and found.note == ""


OTHER = {"bf16": "avx512", "onnxruntime": True, "compiler": True}
"""Facts of a machine that chooses bf16."""


def test_a_worker_takes_the_engine_of_the_machine_that_planned_the_job() -> None:
    network, pixels = _network("test_resnet"), _pixels(5)
    without = extract(network, pixels, PREPROCESS, head=False, planned_for={**OTHER, "bf16": "none"})
    assert without.engine in ("eager", "folded") and without.note == ""
    _need("bf16")
    assert extract(network, pixels, PREPROCESS, head=False, planned=2000, planned_for=OTHER).engine == "bf16"


@pytest.mark.parametrize("engine", ["auto", "bf16", "compiled"])
def test_a_worker_that_cannot_run_the_planned_engine_takes_the_next_and_says_so(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcore.features.engines import hardware

    monkeypatch.setattr(hardware, "_bf16", lambda kind: "none")
    found = extract(
        _network("test_resnet"),
        _pixels(5),
        PREPROCESS,
        head=False,
        engine=engine,
        planned=2000,
        planned_for=OTHER,
    )
    name = "compiled" if engine == "compiled" else "bf16"
    assert found.engine == "folded"
    assert found.note == f"{name}: this cpu multiplies no bfloat16 in hardware; computed by folded"


def test_seconds_leave_out_what_setting_up_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tlcore.features.extract.time.perf_counter", lambda: clock[0])
    ready = prepare

    def slow(*args: object) -> object:
        clock[0] += 100
        return ready(*args)  # type: ignore[arg-type]

    def step(done: int, n: int) -> None:
        clock[0] += 1

    monkeypatch.setattr("tlcore.features.extract.prepare", slow)
    found = extract(
        _network("test_resnet"), _pixels(20), PREPROCESS, head=True, batch_size=8, on_progress=step
    )
    assert found.seconds == 3.0
