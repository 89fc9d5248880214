"""The exported engine against the eager reference, on both layouts and odd sizes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, VARIANTS, VARIANTS_2B, inputs, tiny_model, write_tiny

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import Frame, JointState, Observation
from internvla_a1_ros.engines import building, make_engine
from internvla_a1_ros.engines.building import Order, build, load_from
from internvla_a1_ros.engines.dialect import Dialect
from internvla_a1_ros.engines.graph_engine import GraphEngine
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.engines.recording import Recorder
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.engines.weights import DrawnSource
from internvla_a1_ros.engines.words import Words, write_words
from internvla_a1_ros.evaluation.verification import Gates, measure, verify
from internvla_a1_ros.model.integrators import Guidance, make_plan
from internvla_a1_ros.model.released import RELEASED
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint

EXACT = Gates(dict.fromkeys(("Cosmos", "vision", "prefix KV", "generation KV", "velocity", "chunk", "imagined"), 0.999999))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVLA_A1_CACHE", str(tmp_path / "cache"))


def made(order: Order) -> GraphEngine:
    engine = load_from(build(order), order, 1)
    assert isinstance(engine, GraphEngine)
    return engine


ALL = {**VARIANTS, **{f"2b {name}": sizes for name, sizes in VARIANTS_2B.items()}}


@pytest.mark.parametrize("name", ALL)
def test_the_engine_agrees_with_the_reference(name: str) -> None:
    source = DrawnSource(ALL[name], 3)
    order = Order("onnx", "float32", source, "drawn")
    folder = build(order)
    reference = ReferenceEngine(source.whole(torch.float32))
    expected = [measure(reference, seed, 3)[0] for seed in (0, 1)]
    outcome = verify(expected, lambda: load_from(folder, order, 1), 3, EXACT, None)
    assert outcome.troubles == []
    assert max(line.largest for line in outcome.lines) < 1e-3


@pytest.mark.parametrize("bits", [7, 8])
def test_eight_bits_are_near_and_not_the_same(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 bits are what a CPU gets whose sums of two products would overflow 16 bits."""
    monkeypatch.setattr(building, "weight_bits", lambda: bits)
    source = DrawnSource(TINY, 0)
    reference = ReferenceEngine(source.whole(torch.float32))
    order = Order("onnx", "int8", source, "drawn")
    expected = [measure(reference, seed, 3)[0] for seed in (0, 1)]
    folder = build(order)
    outcome = verify(expected, lambda: load_from(folder, order, 1), 3, Gates({"chunk": 0.99}), None)
    assert outcome.troubles == []
    # The tiny model's products below 64 stay as they are; those of its vision tower do not.
    assert 1e-7 < 1 - min(line.cosine for line in outcome.lines if line.stage == "prefix KV") < 1e-2


def test_a_far_out_token_does_not_cost_the_others_their_precision(tmp_path: Path) -> None:
    from internvla_a1_ros.engines.cpu import weight_bits
    from internvla_a1_ros.engines.exporting import write
    from internvla_a1_ros.engines.onnx_engine import Session, open_graph

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(128, 96, device="meta"))

    model, numbers = One(), torch.randn(128, 96, generator=torch.Generator().manual_seed(0))
    recorder = Recorder(model, lambda name: numbers, Dialect(fused=True, int8=True).operations())
    with torch.no_grad(), recorder:
        recorder.output("y", torch.nn.functional.linear(recorder.input("x", 1, 4, 96), model.weight))

    class Source:
        def load(self, name: str) -> torch.Tensor:
            return numbers

    write(recorder.graph, Source(), tmp_path / "one.onnx", weight_bits())  # type: ignore[arg-type]
    session = Session(open_graph(tmp_path / "one.onnx", 1), {})
    x = torch.randn(1, 4, 96, generator=torch.Generator().manual_seed(1))
    x[0, 0] *= 1e4
    session.inputs["x"].copy_(x)
    session.run()
    error = (session.outputs["y"] - x @ numbers.T)[0].norm(dim=1) / (x @ numbers.T)[0].norm(dim=1)
    assert float(error.max()) < 0.02


def test_a_cycle_writes_where_the_last_one_did_and_moves_nothing() -> None:
    engine = made(Order("onnx", "float32", DrawnSource(TINY, 0), "drawn"))
    given = inputs(TINY)

    def cycle() -> list[int]:
        latents = engine.encode(given["pictures"][: TINY.views])
        prefix = engine.prefix(given["patches"], given["ids"], given["mask"])
        cache = engine.generate(prefix, latents, latents, given["view_mask"])
        engine.flow(cache, given["state"], given["noise"], make_plan("ab2", 4))
        return [tensor.data_ptr() for tokens in (prefix.tokens, cache.tokens) for tensor in (*tokens.keys, *tokens.values)]

    assert cycle() == cycle()


def test_caches_of_an_earlier_cycle_are_refused() -> None:
    engine = made(Order("onnx", "float32", DrawnSource(TINY, 0), "drawn"))
    given = inputs(TINY)
    latents = engine.encode(given["pictures"][: TINY.views])
    old = engine.prefix(given["patches"], given["ids"], given["mask"])
    old_cache = engine.generate(old, latents, latents, given["view_mask"])
    new = engine.prefix(given["patches"], given["ids"], given["mask"])
    with pytest.raises(ConfigurationError, match="earlier cycle"):
        engine.generate(old, latents, latents, given["view_mask"])
    engine.generate(new, latents, latents, given["view_mask"])
    for call in (engine.decode, lambda cache: engine.flow(cache, given["state"], given["noise"], make_plan())):
        with pytest.raises(ConfigurationError, match="earlier cycle"):
            call(old_cache)


def test_guidance_is_the_references_own_and_gradients_are_refused() -> None:
    source = DrawnSource(TINY, 0)
    given = inputs(TINY)
    actions = torch.randn(TINY.chunk, TINY.action_width, generator=torch.Generator().manual_seed(5))
    weights = torch.linspace(1, 0, TINY.chunk)
    found = []
    for engine in (made(Order("onnx", "float32", source, "drawn")), ReferenceEngine(source.whole(torch.float32))):
        latents = engine.encode(given["pictures"][: TINY.views])
        cache = engine.generate(engine.prefix(given["patches"], given["ids"], given["mask"]), latents, latents, given["view_mask"])
        found.append(engine.flow(cache, given["state"], given["noise"], make_plan("heun", 3), Guidance(actions, weights)))
        if isinstance(engine, GraphEngine):
            with pytest.raises(ConfigurationError, match="no gradients"):
                engine.flow(cache, given["state"], given["noise"], make_plan(), Guidance(actions, weights, gradient_clip=5.0))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


def test_an_engine_that_is_not_built_says_what_to_type(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"not built.*internvla-a1 build .*model --engine onnx --precision int8"):
        make_engine("onnx", folder, precision="int8")
    with pytest.raises(ConfigurationError, match="expected one of float32, int8"):
        make_engine("onnx", folder, precision="float16")
    assert isinstance(make_engine("onnx", folder, threads=1, build=True), Engine)
    assert make_engine("onnx", folder, threads=1).name == "onnx"
    make_engine("onnx:int8", folder, threads=1, build=True)
    assert Order.of_checkpoint("onnx", "int8", folder).key.is_built


def test_an_absent_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny(tmp_path / "model")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match="needs onnxruntime.*pip install"):
        make_engine("onnx", folder, build=True)


@pytest.mark.parametrize("damage", ["graph", "weights", "words"])
def test_a_truncated_file_is_never_loaded(tmp_path: Path, damage: str) -> None:
    folder = write_tiny(tmp_path / "model")
    make_engine("onnx", folder, threads=1, build=True)
    order = Order.of_checkpoint("onnx", "float32", folder)
    path = order.key.folder / {"graph": "flow.onnx", "weights": "flow.weights", "words": "words.bin"}[damage]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ConfigurationError, match="not built"):
        make_engine("onnx", folder)
    with pytest.raises(ConfigurationError, match="build it anew"):
        load_from(order.key.folder, order, 1)
    assert make_engine("onnx", folder, threads=1, build=True)


def test_eight_bits_reach_convolutions_too(tmp_path: Path) -> None:
    """Padding, stride and the order of windows, channels and pixels: nano's Cosmos has products wide enough."""
    nano = Path(__file__).resolve().parents[2] / "models/nano"  # taught: drawn weights are coded worse or better by the draw
    exact, near = (make_engine(name, nano, threads=1, build=True) for name in ("onnx", "onnx:int8"))
    pictures = torch.rand(2, 3, *exact.sizes.cosmos_picture, generator=torch.Generator().manual_seed(0)) * 2 - 1
    a, b = exact.encode(pictures).flatten(), near.encode(pictures).flatten()
    assert 0.999 < float(torch.cosine_similarity(a, b, dim=0)) < 0.9999999


def test_a_policy_runs_on_it() -> None:
    """From camera pictures to joint commands: the same chunk as the reference's, on the same noise."""
    make_engine("onnx", find_checkpoint("nano"), threads=1, build=True)
    profile = load_profile("arx_ac_one")
    draw = np.random.default_rng(0)
    frames = [Frame(camera.name, 1, 1, draw.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for camera in profile.cameras]
    joints = JointState(1, (profile.lower + profile.upper) / 2)
    chunks = []
    for engine in ("onnx", "reference"):
        policy = load_policy(find_checkpoint("nano"), profile, "here", engine=engine, threads=1)
        answer = policy.infer(Observation(1, tuple(frames), tuple(frames), joints, 0), "Wait.", imagine=True)
        assert answer.imagined is not None
        chunks.append(answer.chunk.positions)
    assert np.abs(chunks[0] - chunks[1]).max() < 1e-5


def test_words_beyond_the_table_are_refused_and_the_same_prompt_is_read_once(tmp_path: Path) -> None:
    source = DrawnSource(TINY, 0)
    write_words(tmp_path, source)
    words, ids = Words(tmp_path, TINY), torch.tensor([3, 0, 3, TINY.vocabulary - 1])
    assert torch.equal(words(ids)[0], source.load("understanding.text.embed_tokens.weight")[ids])
    assert words(ids) is words(ids.clone())
    for wrong in (-1, TINY.vocabulary):
        with pytest.raises(IndexError, match="rows"):
            words(torch.tensor([0, wrong]))


def test_a_call_without_counterpart_is_named() -> None:
    recorder = Recorder(torch.nn.Linear(2, 2), lambda name: torch.zeros(2), Dialect(fused=True).operations())
    with torch.no_grad(), recorder, pytest.raises(ConfigurationError, match="'erfinv'"):
        torch.erfinv(recorder.input("x", 2))


@pytest.mark.parametrize("size", RELEASED)
def test_the_released_sizes_are_recorded_without_memory(size: str) -> None:
    """Every call of the full model has its counterpart; weights are only named."""
    from internvla_a1_ros.engines.exporting import record
    from internvla_a1_ros.engines.stages import stages

    source = DrawnSource(RELEASED[size], 0)
    for name, stage in stages(source.sizes, 1).items():
        graph = record(source, stage, Dialect(fused=True, int8=True))
        assert graph.outputs and graph.nodes, name
        assert sum(tensor.nbytes for tensor in graph.constants.values()) < 64e6, name


def test_drawn_weights_are_the_same_alone_and_together() -> None:
    source = DrawnSource(TINY, 7)
    for name, parameter in source.whole(torch.float32).named_parameters():
        assert torch.equal(parameter, source.load(name)), name
    assert not torch.equal(source.load("state_proj.weight"), DrawnSource(TINY, 8).load("state_proj.weight"))
    assert {n for n, _ in tiny_model().named_parameters()} == {n for n, _ in source.whole(torch.float32).named_parameters()}
