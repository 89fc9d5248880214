"""The optimised engine against the eager reference: whole cycles of both layouts, what it computes once, what it may not reuse."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import VARIANTS, inputs, tiny_model
from torch.nn import functional as F

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines import kernels, make_engine
from internvla_a1_ros.engines.graphs import Graphs
from internvla_a1_ros.engines.kernels import Linear, attend, norm_floor, unit_norm
from internvla_a1_ros.engines.mapped import peak_bytes
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.engines.torch_engine import TorchEngine
from internvla_a1_ros.model.integrators import Guidance, make_plan
from internvla_a1_ros.runtime.deployment import find_checkpoint, models_folder

NANO = find_checkpoint("nano")
PLAN = make_plan("ab2", 3)


def cycle(engine: Engine, given: dict[str, Any], guidance: Guidance | None = None) -> dict[str, torch.Tensor]:
    """One whole cycle, each stage's answer copied: an engine may write the next one over it."""
    views = engine.sizes.views
    latents = engine.encode(given["pictures"])
    prefix = engine.prefix(given["patches"], given["ids"], given["mask"])
    cache = engine.generate(prefix, latents[:views], latents[views:], given["view_mask"])
    valid = cache.tokens.mask[0]
    parts = [layer[0][:, valid] for layer in (*cache.tokens.keys, *cache.tokens.values)]
    return {
        "latents": latents.clone(),
        "tokens": torch.stack(parts),
        "actions": engine.flow(cache, given["state"], given["noise"], PLAN, guidance).clone(),
        "future": engine.decode(cache)[given["view_mask"]].clone(),
    }


def pair(name: str) -> tuple[ReferenceEngine, TorchEngine]:
    return ReferenceEngine(tiny_model(VARIANTS[name])), TorchEngine(tiny_model(VARIANTS[name]))


def same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 2e-5) -> None:
    for stage, answer in expected.items():
        allowed = tolerance * max(1.0, float(answer.abs().max()))
        torch.testing.assert_close(got[stage], answer, atol=allowed, rtol=0, msg=lambda text, stage=stage: f"{stage}: {text}")


def without_view(given: dict[str, Any], view_tokens: int, view: int) -> dict[str, Any]:
    mask, seen = given["mask"].clone(), given["view_mask"].clone()
    mask[view * view_tokens : (view + 1) * view_tokens] = False
    seen[view] = False
    return {**given, "mask": mask, "view_mask": seen}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_whole_cycle_is_the_reference_s(name: str) -> None:
    reference, engine = pair(name)
    given = inputs(VARIANTS[name])
    same(cycle(engine, given), cycle(reference, given))


@pytest.mark.parametrize("compact", [True, False], ids=["leaves masked tokens out", "masks them, as on a GPU"])
def test_missing_views_and_padding(compact: bool) -> None:
    reference, engine = pair("tiny")
    engine._compact = compact
    full = inputs(VARIANTS["tiny"])
    everything = {**full, "mask": torch.ones_like(full["mask"])}
    for given in (full, without_view(full, reference.sizes.view_tokens, 1), everything, full):
        same(cycle(engine, given), cycle(reference, given))


def test_guidance_is_the_reference_s_and_nothing_at_weight_zero() -> None:
    reference, engine = pair("tiny")
    given, shape = inputs(VARIANTS["tiny"]), (reference.sizes.chunk, reference.sizes.action_width)
    guidance = Guidance(torch.randn(shape, generator=torch.Generator().manual_seed(2)), torch.linspace(1, 0, shape[0]))
    same(cycle(engine, given, guidance), cycle(reference, given, guidance))
    nothing = Guidance(guidance.actions, torch.zeros(shape[0]))
    assert torch.equal(cycle(engine, given, nothing)["actions"], cycle(engine, given)["actions"])
    prefix = engine.prefix(given["patches"], given["ids"], given["mask"])
    cache = engine.generate(prefix, *engine.encode(given["pictures"]).chunk(2), given["view_mask"])
    with pytest.raises(ConfigurationError, match="no gradients"):
        engine.flow(cache, given["state"], given["noise"], PLAN, Guidance(guidance.actions, guidance.weights, gradient_clip=5.0))


def test_a_cache_of_an_earlier_cycle_is_refused() -> None:
    _, engine = pair("tiny")
    given = inputs(VARIANTS["tiny"])
    other = {**given, "mask": torch.ones_like(given["mask"])}
    latents = engine.encode(given["pictures"]).chunk(2)
    first = engine.prefix(given["patches"], given["ids"], given["mask"])
    cache = engine.generate(first, *latents, given["view_mask"])
    again = engine.generate(first, *latents, given["view_mask"])
    with pytest.raises(ConfigurationError, match="earlier cycle"):  # written over, though nothing differs
        engine.flow(cache, given["state"], given["noise"], PLAN)
    engine.flow(again, given["state"], given["noise"], PLAN)
    engine.prefix(given["patches"], given["ids"], given["mask"])
    with pytest.raises(ConfigurationError, match="earlier cycle"):
        engine.generate(first, *latents, given["view_mask"])
    engine.prefix(other["patches"], other["ids"], other["mask"])
    with pytest.raises(ConfigurationError, match="earlier cycle"):
        engine.generate(first, *latents, given["view_mask"])
    with pytest.raises(ConfigurationError, match="earlier cycle"):
        engine.flow(again, given["state"], given["noise"], PLAN)


class Replaying(Graphs):
    """Records as on a GPU: a replay runs the body on the buffers it was recorded with and writes over the first result."""

    def __init__(self) -> None:
        super().__init__(torch.device("cuda"), None)

    def _record(self, body: Any, inputs: tuple[torch.Tensor, ...]) -> Any:
        held = tuple(tensor.clone() for tensor in inputs)
        result = body(*held)

        def replay() -> None:
            fresh = body(*held)
            if result is not None:
                result.copy_(fresh)

        return SimpleNamespace(replay=replay), held, result


def test_over_replayed_recordings_answers_are_the_reference_s_and_the_caller_s_own() -> None:
    reference, engine = pair("tiny")
    engine._compact, engine._graphs = False, Replaying()
    kept = []
    for seed in range(12):  # more sets of valid tokens than have their tables kept
        given = inputs(VARIANTS["tiny"], seed)
        given["mask"] = torch.ones_like(given["mask"])
        given["mask"][len(given["mask"]) - seed % 6 :] = seed % 6 == 0
        shape = (reference.sizes.chunk, reference.sizes.action_width)
        guidance = Guidance(torch.full(shape, seed / 10), torch.linspace(1, 0, shape[0])) if seed % 2 else None
        latents = engine.encode(given["pictures"])
        kept.append((latents, latents.clone()))
        same(cycle(engine, given, guidance), cycle(reference, given, guidance))
    assert all(torch.equal(latents, then) for latents, then in kept)


def test_the_shipped_model_loads_and_bfloat16_stays_close() -> None:
    reference = make_engine("reference", NANO, threads=1)
    given = inputs(reference.sizes)
    expected = cycle(reference, given)
    same(cycle(make_engine("torch", NANO, threads=1), given), expected)
    half = cycle(make_engine("torch", NANO, threads=1, precision="bfloat16"), given)
    for stage, answer in expected.items():
        assert F.cosine_similarity(half[stage].float().flatten(), answer.flatten(), dim=0) > 0.999, stage


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "plain"])
def test_products_and_what_follows_them(packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if packs and not kernels.PACKS:
        pytest.skip("oneDNN's operations are not in this torch")
    monkeypatch.setattr(kernels, "PACKS", packs)
    draw = torch.Generator().manual_seed(0)
    x, other = torch.randn(5, 24, generator=draw), torch.randn(5, 40, generator=draw)
    weight, bias = torch.randn(40, 24, generator=draw), torch.randn(40, generator=draw)
    for linear, y in ((Linear(weight, bias), F.linear(x, weight, bias)), (Linear(weight), F.linear(x, weight))):
        torch.testing.assert_close(linear(x), y)
        torch.testing.assert_close(linear.swish(x), F.silu(y))
        torch.testing.assert_close(linear.gelu(x, "tanh"), F.gelu(y, approximate="tanh"), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(linear.gelu(x, "none"), F.gelu(y), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(linear.plus(x, other), y + other)
        torch.testing.assert_close(linear.times(x, other), y * other)


def test_norm_and_attention() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 16, generator=draw) * torch.tensor([[1.0], [1e-4], [0.0]])  # where eps counts, too
    torch.testing.assert_close(unit_norm(x, norm_floor(16, 1e-6, x.device)) * 4, F.rms_norm(x, (16,), eps=1e-6))
    q, k, v = (torch.randn(n, heads, 8, generator=draw) for n, heads in ((3, 6), (5, 2), (5, 2)))
    expected = F.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in (q, k, v)), enable_gqa=True)[0].transpose(0, 1)
    for mask in (None, torch.zeros(5)):
        torch.testing.assert_close(attend(q / 8**0.5, k, v, mask), expected.reshape(3, 48))


class FakeCuda:
    """A stand-in for torch.cuda whose graphs repeat what was recorded."""

    def __init__(self) -> None:
        self.replays = 0
        self.Stream = self.current_stream = lambda: SimpleNamespace(wait_stream=lambda other: None)
        self.CUDAGraph = lambda: SimpleNamespace(replay=self.replay)

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Any:
        yield

    @contextlib.contextmanager
    def graph(self, graph: Any) -> Any:
        yield

    def replay(self) -> None:
        self.replays += 1
        self.body()


def test_graphs_record_once_and_replay_over_a_fake_of_cuda() -> None:
    cuda, calls = FakeCuda(), []
    graphs = Graphs(torch.device("cuda"), cuda)
    out = torch.zeros(2)

    def body(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return out.copy_(2 * x)

    cuda.body = lambda: body(calls[0])  # type: ignore[attr-defined] # the buffer that was recorded
    for value in (1.0, 2.0, 3.0):
        assert torch.equal(graphs("key", body, torch.full((2,), value)), torch.full((2,), 2 * value))
    assert cuda.replays == 3 and len({x.data_ptr() for x in calls}) == 1
    graphs("other", body, torch.ones(2))
    assert len({x.data_ptr() for x in calls}) == 2


def test_the_peak_is_this_process_s_own_and_never_falls() -> None:
    before = peak_bytes()
    held = torch.ones(1 << 26)
    assert peak_bytes() >= max(before, held.numel())
    del held
    assert peak_bytes() >= before


def test_on_a_cpu_nothing_is_recorded() -> None:
    assert Graphs(torch.device("cpu"))("key", lambda x: x, 1) == 1  # type: ignore[arg-type]


def test_a_warm_cycle_on_a_cpu_touches_no_new_memory() -> None:
    """With the policy process's one heap activations come out of what the allocator holds: the system hands out no page."""
    code = """
import resource, torch
from pathlib import Path
from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.evaluation.given import Given
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.nodes.realtime import keep_one_heap
keep_one_heap()
torch.set_num_threads(1)
engine = make_engine("torch", Path("models/nano"), threads=1)
given, plan = Given.draw(engine.sizes, 0), make_plan("euler", 10, "uniform")
def cycle():
    latents = engine.encode(given.pictures[:3])
    cache = engine.generate(engine.prefix(given.pixels, given.ids, given.mask), latents, latents, given.views)
    engine.flow(cache, given.state, given.noise, plan)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8): cycle()
rounds = [faults()]
for _ in range(4):  # the system may take pages back that it thinks idle, and fault them in again: the quietest round counts
    for _ in range(10): cycle()
    rounds.append(faults())
print(min(after - before for before, after in zip(rounds, rounds[1:])))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=models_folder().parent, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 10, "at most one page a cycle; one activation of the encoder alone is some 500"
