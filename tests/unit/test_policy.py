"""`Policy.infer` with the small model that ships, and everything that must agree before it may run."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from internvla_a1_ros.core.checksum import sha256_of
from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError, RobotMismatch
from internvla_a1_ros.core.types import ActionChunk, ByteArray, Frame, JointState, Observation
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.model.integrators import METHODS, SPACINGS, FlowPlan, Guidance, make_plan
from internvla_a1_ros.policy import policy as policy_module
from internvla_a1_ros.policy.agreement import check_statistics
from internvla_a1_ros.policy.guiding import GuidanceMode
from internvla_a1_ros.policy.manifest import Continuation, Preset, load_manifest
from internvla_a1_ros.policy.pictures import Look
from internvla_a1_ros.policy.policy import Policy, laid_within, load_policy
from internvla_a1_ros.policy.statistics import StatisticsFile
from internvla_a1_ros.robots.profile import RobotProfile, load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint

NANO = find_checkpoint("nano")
ARX = load_profile("arx_ac_one")
READY = ARX.ready_from(np.full(14, -1.7))
SENTENCE = "Pick up the package from the conveyor and place it in the bin"
MS = 1_000_000
SECOND = 1_000 * MS


class Spy:
    """The real engine; notes what it was given. `answer` stands in for the flow's where it is set."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.sizes, self.encodes_early = engine, engine.name, engine.sizes, engine.encodes_early
        self.encoded: list[int] = []
        self.answer: Tensor | None = None
        self.given: dict[str, Tensor] = {}
        self.plan = make_plan()
        self.guidance: Guidance | None = None

    def encode(self, pictures: Tensor) -> Tensor:
        self.encoded.append(len(pictures))
        return self.engine.encode(pictures)

    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Any:
        self.given.update(pixels=pixel_values, tokens=input_ids, token_mask=attention_mask)
        return self.engine.prefix(pixel_values, input_ids, attention_mask)

    def generate(self, prefix: Any, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> Any:
        self.given.update(past=latents_past, now=latents_now, view_mask=view_mask)
        return self.engine.generate(prefix, latents_past, latents_now, view_mask)

    def flow(self, cache: Any, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        self.given.update(state=state, noise=noise)
        self.plan, self.guidance = plan, guidance
        return self.engine.flow(cache, state, noise, plan, guidance) if self.answer is None else self.answer

    def decode(self, cache: Any) -> Tensor:
        return self.engine.decode(cache)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Quick beside other tests, and sums in the same order every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return policy_module.make_engine("reference", NANO, threads=1)


@pytest.fixture
def spy(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Spy:
    """What `load_policy` gets for an engine: loaded once for all tests."""
    spy = Spy(engine)
    monkeypatch.setattr(policy_module, "make_engine", lambda *_, **__: spy)
    return spy


def picture(seed: int) -> ByteArray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)


def frame(camera: str, stamp_ns: int) -> Frame:
    view = ("head", "left", "right").index(camera)
    return Frame(camera, stamp_ns, stamp_ns, picture(stamp_ns // MS * 3 + view))


def observation(
    stamp_ns: int = SECOND, past_ns: int | None = None, cameras: tuple[str | None, ...] = ("head", "left", "right")
) -> Observation:
    """Return an observation at rest in the ready pose; None instead of a camera is a missing view."""
    now = tuple(None if name is None else frame(name, stamp_ns) for name in cameras)
    past = now if past_ns is None else tuple(None if name is None else frame(name, past_ns) for name in cameras)
    return Observation(stamp_ns, now, past, JointState(stamp_ns, READY), 0)


def nano(seed: int = 0, profile: RobotProfile = ARX, checkpoint: Path = NANO, **options: Any) -> Policy:
    return load_policy(checkpoint, profile, "cell_1", seed=seed, **options)


def changed_profile(**changes: Any) -> RobotProfile:
    return RobotProfile.model_validate({**ARX.model_dump(), **changes})


def grippers(closed: float, opened: float, **maps: dict[str, float]) -> list[dict[str, Any]]:
    return [{"joint": f"{side}_gripper", "closed": closed, "open": opened, **maps} for side in ("left", "right")]


def checkpoint_with(folder: Path, manifest: dict[str, Any] | None = None, stats: dict[str, Any] | None = None) -> Path:
    """Return a copy of the small model with keys of its manifest (None: taken out) or its whole statistics changed."""
    folder.mkdir(exist_ok=True)
    for file in NANO.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    if manifest is not None:
        content = {**yaml.safe_load((NANO / "manifest.yaml").read_text()), **manifest}
        (folder / "manifest.yaml").unlink()
        (folder / "manifest.yaml").write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    if stats is not None:
        (folder / "stats.json").unlink()
        (folder / "stats.json").write_text(json.dumps(stats))
    return folder


def nano_stats() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((NANO / "stats.json").read_text())
    return content


def refusal(error: type[ConfigurationError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        nano(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The chunk


def test_the_chunk_is_of_this_robot_and_stamped_with_its_observation(spy: Spy) -> None:
    chunk = nano().infer(observation(5 * SECOND), SENTENCE).chunk
    assert (chunk.robot, chunk.joint_names, chunk.stamp_ns) == ("cell_1", ARX.joint_names, 5 * SECOND)
    assert chunk.positions.shape == (50, 14)
    assert chunk.dt_ns == 33_333_333 and chunk.first_ns == 5 * SECOND + chunk.dt_ns  # offset 1: a label is the next state
    assert spy.plan == make_plan("euler", 10)


def test_actions_without_an_offset_begin_at_the_observation(spy: Spy, tmp_path: Path) -> None:
    actions = {"mode": "abs", "offset": 0, "dt_s": 0.02}
    checkpoint = checkpoint_with(tmp_path / "abs", {"actions": actions})
    spy.answer = torch.zeros(50, spy.sizes.action_width)
    chunk = nano(checkpoint=checkpoint).infer(observation(), SENTENCE).chunk
    assert chunk.first_ns == chunk.stamp_ns == SECOND and chunk.dt_ns == 20 * MS
    mean = StatisticsFile(NANO / "stats.json").of("ARX AC One").action.mean
    assert chunk.positions == pytest.approx(np.broadcast_to(mean, (50, 14)))  # absolute: nothing of the state


def test_deltas_are_added_to_the_observed_arms_and_not_to_the_grippers(spy: Spy) -> None:
    spy.answer = torch.arange(50.0)[:, None] * torch.ones(spy.sizes.action_width)
    positions = nano().infer(observation(), SENTENCE).chunk.positions
    action = StatisticsFile(NANO / "stats.json").of("ARX AC One").action
    relative = np.arange(50.0)[:, None] * (action.std + 1e-6) + action.mean
    expected = relative + np.where(ARX.is_delta, READY, 0.0)
    inside = (expected >= ARX.lower) & (expected <= ARX.upper)
    assert inside[:, ~ARX.is_gripper].all() and inside[:3].all()
    assert positions[inside] == pytest.approx(expected[inside], abs=1e-5)


def test_what_is_a_little_beyond_a_limit_is_laid_onto_it(spy: Spy) -> None:
    """And what is far beyond stays, for the command process to refuse."""
    spy.answer = 20 * torch.arange(-25.0, 25.0)[:, None] * torch.ones(spy.sizes.action_width)
    action = StatisticsFile(NANO / "stats.json").of("ARX AC One").action
    asked = 20 * np.arange(-25.0, 25.0)[:, None] * (action.std + 1e-6) + action.mean + np.where(ARX.is_delta, READY, 0.0)
    positions = nano().infer(observation(), SENTENCE).chunk.positions
    slack = 0.1 * (ARX.upper - ARX.lower)
    below, above = (asked < ARX.lower) & (asked >= ARX.lower - slack), (asked > ARX.upper) & (asked <= ARX.upper + slack)
    far = (asked < ARX.lower - slack) | (asked > ARX.upper + slack)
    assert below.any() and above.any() and far.any()
    on_it = np.where(below, ARX.lower, np.where(above, ARX.upper, asked))
    assert positions == pytest.approx(on_it, abs=1e-5)


@given(st.floats(0.0, 2.0), st.sampled_from([-1.0, 1.0]))
def test_the_limit_is_the_limit(beyond: float, side: float) -> None:
    lower, upper = np.array([-2.0]), np.array([2.0])
    (laid,) = laid_within(np.array([[side * (2.0 + beyond)]]), lower, upper)[0]
    assert laid == (side * 2.0 if beyond <= 0.4 - 1e-9 else laid) and (laid in (side * 2.0, side * (2.0 + beyond)))
    if beyond > 0.4 + 1e-9:
        assert laid == side * (2.0 + beyond)
    assert np.isnan(laid_within(np.array([[np.nan]]), lower, upper)).all()


def test_grippers_are_mapped_on_the_way_in_and_out(spy: Spy) -> None:
    """A unit that reads 0..5 runs a checkpoint recorded with 0..-3.4."""
    scale = -3.4 / 5
    maps = {"state": {"scale": scale, "offset": 0.1}, "action": {"scale": 1 / scale, "offset": 0.2}}
    joints = [{**joint, "lower": 0.0, "upper": 5.0} if joint["kind"] == "gripper" else joint for joint in ARX.model_dump()["joints"]]
    profile = changed_profile(joints=joints, grippers=grippers(0.0, 5.0, **maps))
    spy.answer = torch.zeros(50, spy.sizes.action_width)
    measured = READY.copy()
    measured[[6, 13]] = 2.0, 5.0
    now = observation()
    chunk = nano(profile=profile).infer(Observation(SECOND, now.current, now.past, JointState(SECOND, measured), 0), SENTENCE).chunk
    statistics = StatisticsFile(NANO / "stats.json").of("ARX AC One")
    seen = spy.given["state"].numpy()[:14] * (statistics.state.std + 1e-6) + statistics.state.mean
    assert seen[[6, 13]] == pytest.approx([2.0 * scale + 0.1, 5.0 * scale + 0.1], abs=1e-5)
    assert seen[~ARX.is_gripper] == pytest.approx(READY[~ARX.is_gripper], abs=1e-5)
    assert chunk.positions[:, [6, 13]] == pytest.approx(np.broadcast_to(statistics.action.mean[[6, 13]] / scale + 0.2, (50, 2)))


def test_an_answer_that_is_not_finite_is_refused(spy: Spy) -> None:
    spy.answer = torch.full((50, spy.sizes.action_width), float("nan"))
    with pytest.raises(ValueError, match="expected finite numbers"):
        nano().infer(observation(), SENTENCE)


def test_pictures_are_imagined_on_request(spy: Spy) -> None:
    policy = nano()
    plain = policy.infer(observation(), SENTENCE)
    asked = policy.infer(observation(), SENTENCE, imagine=True)
    assert plain.imagined is None and "imagine" not in plain.timings_s
    assert asked.imagined is not None and asked.imagined.dtype == np.uint8 and asked.imagined.shape == (3, 96, 96, 3)
    steps = ["encode", "decode", "prepare", "prefix", "generate", "guide", "flow", "finish"]  # every latent is known the second time
    assert list(asked.timings_s) == [*steps[:-1], "imagine", "finish"] and sorted(plain.timings_s) == sorted(steps)


# Seed


def test_the_same_seed_gives_the_same_chunks_and_another_does_not(spy: Spy) -> None:
    first, again, other = nano(seed=3), nano(seed=3), nano(seed=4)
    chunks = [[policy.infer(observation(k * SECOND), SENTENCE).chunk.positions for k in (1, 2)] for policy in (first, again, other)]
    assert np.array_equal(chunks[0], chunks[1])
    assert not np.array_equal(chunks[0][0], chunks[2][0])
    assert np.abs(np.array(chunks[0]) - READY)[:, :, ~ARX.is_gripper].max() < 0.1  # the model's note: it stays near


def test_pictures_state_and_instruction_reach_the_model(spy: Spy) -> None:
    def answer(shown: Observation, sentence: str) -> ByteArray:
        return nano().infer(shown, sentence).chunk.positions - shown.joints.positions

    base = answer(observation(), SENTENCE)
    moved = READY.copy()
    moved[0] += 0.3
    now = observation()
    assert not np.array_equal(answer(observation(2 * SECOND), SENTENCE), base)
    assert not np.array_equal(answer(observation(SECOND, past_ns=SECOND // 2), SENTENCE), base)
    assert not np.array_equal(answer(now, "Pick up the bread with left arm"), base)
    assert not np.allclose(answer(Observation(SECOND, now.current, now.past, JointState(SECOND, moved), 0), SENTENCE), base, atol=1e-6)
    assert np.array_equal(answer(observation(), SENTENCE), base)


def test_the_warm_up_leaves_no_trace(spy: Spy) -> None:
    cold, warm = nano(), nano()
    warm.warm_up(SENTENCE)
    assert np.isnan(warm.latent_hit_rate) and not any(warm.knows(Frame(name, 1, 1, picture(0))) for name in ("head", "left", "right"))
    expected, got = (policy.infer(observation(), SENTENCE).chunk.positions for policy in (cold, warm))
    assert np.array_equal(expected, got)


# Latents


def walk(policy: Policy, spy: Spy, period_ns: int, count: int) -> None:
    """Infer (but for the flow) every `period_ns`, the past always half a second before, or the first picture."""
    spy.answer = torch.zeros(50, spy.sizes.action_width)
    for k in range(count):
        now = SECOND + k * period_ns
        back = max(0, k - round(SECOND / 2 / period_ns))
        policy.infer(observation(now, past_ns=SECOND + back * period_ns), SENTENCE)


def test_latents_of_pictures_seen_before_are_used_again(spy: Spy) -> None:
    policy = nano()
    walk(policy, spy, 100 * MS, 8)
    assert spy.encoded == [3] * 8
    assert policy.latent_hit_rate == pytest.approx(7 / 8)  # at the very first the past is the present
    assert policy.knows(frame("head", SECOND)) and not policy.knows(frame("head", 3 * SECOND))
    policy.infer(observation(2 * SECOND, past_ns=SECOND), SENTENCE)
    now, past = spy.given["now"], spy.given["past"]
    nano().infer(observation(2 * SECOND, past_ns=SECOND), SENTENCE)  # one that remembers nothing
    assert torch.allclose(spy.given["past"], past, atol=1e-5) and torch.allclose(spy.given["now"], now, atol=1e-5)
    assert not torch.allclose(now, past, atol=1e-2)


def test_unknown_past_pictures_are_encoded_and_counted(spy: Spy) -> None:
    policy = nano()
    policy.infer(observation(2 * SECOND, past_ns=SECOND), SENTENCE)
    assert sum(spy.encoded) == 6 and policy.latent_hit_rate == 0.0
    policy.forget()
    policy.infer(observation(2 * SECOND, past_ns=SECOND), SENTENCE)
    assert sum(spy.encoded) == 12 and policy.latent_hit_rate == 0.0


def test_the_first_picture_is_encoded_while_others_are_decoded_where_that_pays(spy: Spy) -> None:
    chunks = []
    for spy.encodes_early, groups in ((True, [1, 2]), (True, [1, 2]), (False, [3])):
        spy.encoded.clear()
        chunks.append(nano().infer(observation(SECOND), SENTENCE).chunk.positions)
        assert spy.encoded == groups
    assert np.array_equal(chunks[0], chunks[1]), "the groups follow from the views, not from which picture is decoded first"
    assert np.allclose(chunks[0], chunks[2], atol=1e-4)


@pytest.mark.parametrize("kept", [6, 8, 9, 12])
def test_latents_about_to_be_dropped_can_still_be_used(spy: Spy, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """A past picture that is the oldest kept must not vanish between being found and being used."""
    monkeypatch.setattr(policy_module, "_KEPT_LATENTS", kept)
    policy = nano()
    walk(policy, spy, 250 * MS, 8)  # the past is two cycles, six pictures ago
    assert len(policy._latents) <= kept


def test_every_picture_is_decoded_once(spy: Spy) -> None:
    decoded: Counter[str] = Counter()

    def counting(name: str) -> Any:
        def decode(_: tuple[int, int] | None = None) -> ByteArray:
            decoded[name] += 1
            time.sleep(0.01)  # long enough for the other decoder to come by
            return picture(1)

        return decode

    now, past = (tuple(Frame(c, t, t, counting(f"{c}{t}")) for c in ("head", "left", "right")) for t in (2 * SECOND, SECOND))
    policy = nano()
    for early in (now[0], now[1], now[0], Frame("left", 3 * SECOND, 3 * SECOND, counting("unused"))):
        policy.look_ahead(early)
    policy.infer(Observation(2 * SECOND, now, past, JointState(2 * SECOND, READY), 0), SENTENCE)
    assert len(decoded) - ("unused" in decoded) == 6 and set(decoded.values()) == {1}


def test_pictures_are_prepared_where_the_engine_reads_them(spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, places = nano(), []
    monkeypatch.setattr(policy, "_device", torch.device("cpu", 0))
    plain = Look.at
    monkeypatch.setattr(Look, "at", lambda rgb, sizes, device="nowhere": places.append(device) or plain(rgb, sizes))
    policy.look_ahead(frame("head", 2 * SECOND))
    policy.infer(observation(SECOND), SENTENCE)
    assert set(places) == {torch.device("cpu", 0)}


def test_looking_ahead_changes_no_bit_and_a_picture_that_does_not_decode_counts_when_it_is_used(spy: Spy) -> None:
    plain, early = nano(), nano()
    seen = observation(SECOND)
    for frame in seen.current:
        assert frame is not None
        early.look_ahead(frame)
    chunks = [policy.infer(seen, SENTENCE).chunk for policy in (early, plain)]
    assert np.array_equal(chunks[0].positions, chunks[1].positions)

    def broken(_: tuple[int, int] | None = None) -> ByteArray:
        raise ValueError("does not decode")

    early.look_ahead(Frame("head", 2 * SECOND, 2 * SECOND, broken))
    early.infer(observation(2 * SECOND), SENTENCE)  # another picture was used
    bad = Frame("head", 3 * SECOND, 3 * SECOND, broken)
    early.look_ahead(bad)
    now = observation(3 * SECOND)
    with pytest.raises(ValueError, match="does not decode"):
        early.infer(replace(now, current=(bad, *now.current[1:])), SENTENCE)


def test_latents_stay_few_where_one_picture_never_decodes(spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_KEPT_LATENTS", 6)

    def broken(_: tuple[int, int] | None = None) -> ByteArray:
        raise ValueError("does not decode")

    policy = nano()
    for k in range(1, 20):
        now = observation(k * SECOND)
        bad = Frame("left", k * SECOND, k * SECOND, broken)
        with pytest.raises(ValueError, match="does not decode"):
            policy.infer(replace(now, current=(now.current[0], bad, now.current[2])), SENTENCE)
    assert len(policy._latents) <= 6 + 3


# A missing view


def test_a_missing_view_is_masked_everywhere(spy: Spy) -> None:
    policy = nano()
    policy.infer(observation(cameras=("head", None, "right")), SENTENCE)
    given = spy.given
    assert given["view_mask"].tolist() == [True, False, True]
    tokens = given["token_mask"][: 3 * spy.sizes.view_tokens].view(3, -1)
    assert tokens.all(dim=1).tolist() == [True, False, True] and not tokens[1].any()
    assert given["now"][1].abs().max() == 0 and given["past"][1].abs().max() == 0 and given["now"][0].abs().max() > 0
    assert spy.encoded == [2]
    policy.infer(observation(2 * SECOND), SENTENCE)  # it is back
    assert spy.given["view_mask"].all() and spy.given["token_mask"][: 3 * spy.sizes.view_tokens].all()


# What must agree


def test_another_generation_of_gripper_is_refused(spy: Spy) -> None:
    text = refusal(RobotMismatch, profile=changed_profile(grippers=grippers(0.0, 5.0)))
    assert "'left_gripper' was recorded from -3.40 to 0.00" in text and "0 closed and 5 open: another generation of gripper" in text


def test_a_gripper_map_for_actions_alone_is_refused(spy: Spy) -> None:
    maps = {"state": {"scale": -0.68}}
    assert "statistics of actions" in refusal(RobotMismatch, profile=changed_profile(grippers=grippers(0.0, 5.0, **maps)))


def test_widths_must_be_the_robots() -> None:
    statistics = StatisticsFile(NANO / "stats.json").of("ARX AC One")
    check_statistics(statistics, 14, ARX)
    with pytest.raises(RobotMismatch, match=r"^checkpoint's actions: got a width of 16, expected 14, the joints of robot 'arx_ac_one'$"):
        check_statistics(statistics, 16, ARX)


@pytest.mark.parametrize("what", ["states", "actions"])
def test_statistics_of_another_width_are_refused(spy: Spy, tmp_path: Path, what: str) -> None:
    stats = nano_stats()
    joint = stats["ARX AC One"][f"{what}.left_joint.position"]
    for moment in ("mean", "std", "min", "max"):
        joint[moment] = joint[moment][:5]
    text = refusal(RobotMismatch, checkpoint=checkpoint_with(tmp_path / "x", stats=stats))
    assert text == f"{what}: got a width of 13, expected 14, the joints of robot 'arx_ac_one'"


def test_another_robot_type_is_refused(spy: Spy, tmp_path: Path) -> None:
    text = refusal(RobotMismatch, checkpoint=checkpoint_with(tmp_path / "x", {"robot_type": "Genie-1"}))
    assert "is for robot type 'Genie-1', robot 'arx_ac_one' accepts ARX AC One, arx_ac_one" in text
    assert "did you mean 'ARX AC One'?" in refusal(RobotMismatch, checkpoint=checkpoint_with(tmp_path / "x", {"robot_type": "ARX AC Ome"}))


def test_a_robot_type_by_its_other_name_is_accepted(spy: Spy, tmp_path: Path) -> None:
    assert nano(checkpoint=checkpoint_with(tmp_path / "x", {"robot_type": "arx_ac_one"})).manifest.robot_type == "arx_ac_one"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state_keys", [f"states.{part}.position" for part in ("left_joint", "right_joint", "left_gripper", "right_gripper")]),
        ("action_keys", [f"actions.{part}.position" for part in ("right_joint", "right_gripper", "left_joint", "left_gripper")]),
        ("delta_mask", [7, 7]),
    ],
)
def test_another_layout_of_the_vectors_is_refused(spy: Spy, key: str, value: list[Any]) -> None:
    dataset = {**ARX.model_dump()["dataset"], key: value}
    assert f"robot 'arx_ac_one': dataset.{key}: got {value}" in refusal(RobotMismatch, profile=changed_profile(dataset=dataset))


def test_statistics_without_the_robot_are_refused(spy: Spy, tmp_path: Path) -> None:
    stats = {"ARX Lift-2": nano_stats()["ARX AC One"]}
    text = refusal(RobotMismatch, checkpoint=checkpoint_with(tmp_path / "x", stats=stats))
    assert "no statistics of robot type 'ARX AC One', it has ARX Lift-2" in text


def test_a_number_missing_in_the_statistics_is_named(spy: Spy, tmp_path: Path) -> None:
    stats = nano_stats()
    del stats["ARX AC One"]["actions.right_gripper.position"]["std"]
    text = refusal(CheckpointError, checkpoint=checkpoint_with(tmp_path / "x", stats=stats))
    assert "key 'actions.right_gripper.position' has no 'std'" in text


def test_a_checkpoint_with_fewer_views_than_cameras_is_refused(spy: Spy) -> None:
    dataset = {**ARX.model_dump()["dataset"], "image_keys": ["images.rgb.head", "images.rgb.hand_left"]}
    text = refusal(CheckpointError, profile=changed_profile(cameras=ARX.model_dump()["cameras"][:2], dataset=dataset))
    assert text == "checkpoint 'nano' looks through 3 cameras, robot 'arx_ac_one' has 2"


def test_an_unknown_preset_is_refused(spy: Spy) -> None:
    assert refusal(ConfigurationError, preset="exakt") == "preset: got 'exakt', checkpoint 'nano' has exact, fast, did you mean 'exact'?"


def test_presets_say_how_the_flow_is_run(spy: Spy, tmp_path: Path) -> None:
    presets = {
        "presets": {"exact": {"steps": 10}, "quick": {"method": "ab2", "steps": 4, "spacing": "dense_at_ends", "noise": 0.5}},
        "default_preset": "quick",
    }
    checkpoint = checkpoint_with(tmp_path / "x", presets)
    nano(checkpoint=checkpoint).infer(observation(), SENTENCE)
    assert spy.plan == make_plan("ab2", 4, "dense_at_ends")
    half = spy.given["noise"]
    nano(checkpoint=checkpoint, preset="exact").infer(observation(), SENTENCE)
    assert spy.plan == make_plan("euler", 10) and torch.equal(half, 0.5 * spy.given["noise"])


# The manifest


def test_the_manifest_that_ships() -> None:
    manifest = load_manifest(NANO)
    assert not manifest.trained and manifest.target_rate_hz == 10
    assert (manifest.history.spec.interval_ns, manifest.history.spec.tolerance_ns) == (500 * MS, 33_333_333)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"robot_tpye": "ARX AC One", "robot_type": None}, "unknown key 'robot_tpye', did you mean 'robot_type'?"),
        ({"actions": {"mode": "delta", "ofset": 1}}, "unknown key 'actions.ofset', did you mean 'offset'?"),
        ({"presets": {"exact": {"stepz": 10}}}, "unknown key 'presets.exact.stepz', did you mean 'steps'?"),
        ({"robot_type": None}, "key 'robot_type' is missing"),
        ({"actions": {"mode": "relative", "offset": 1}}, "actions.mode: got 'relative', expected: input should be 'delta' or 'abs'"),
        ({"actions": {"mode": "delta", "offset": 2}}, "actions.offset: got 2, expected: input should be 0 or 1"),
        ({"presets": {"exact": {"steps": 0}}}, "presets.exact.steps: got 0, expected: input should be greater than or equal to 1"),
        ({"target_rate_hz": float("nan")}, "target_rate_hz: got nan, expected: input should be a finite number"),
        ({"default_preset": "quick"}, "default_preset: got 'quick', expected one of exact, fast"),
    ],
)
def test_a_manifest_written_wrong(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    checkpoint = checkpoint_with(tmp_path / "x", change)
    with pytest.raises(CheckpointError) as caught:
        load_manifest(checkpoint)
    assert str(caught.value) == f"{checkpoint / 'manifest.yaml'}: {sentence}"


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no manifest\.yaml; write one beside it \(docs/deploy\.md\): robot_type"):
        load_manifest(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_manifest(tmp_path / "nowhere")


def test_other_weights_than_the_manifest_says_are_refused(spy: Spy, tmp_path: Path) -> None:
    sha256 = sha256_of(NANO / "model.safetensors")
    nano(checkpoint=checkpoint_with(tmp_path / "same", {"sha256": sha256}))
    other = checkpoint_with(tmp_path / "other", {"sha256": "0" * 64})
    text = refusal(CheckpointError, checkpoint=other)
    assert text == f"{other / 'model.safetensors'}: got weights of sha256 {sha256}, its manifest.yaml expects {'0' * 64}"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "stats.json", "tokenizer.json"])
def test_a_file_missing_beside_the_manifest_is_named(tmp_path: Path, missing: str) -> None:
    checkpoint = checkpoint_with(tmp_path / "x")
    (checkpoint / missing).unlink()
    assert missing in refusal(CheckpointError, checkpoint=checkpoint)


def test_a_manifest_knows_the_integrators_there_are() -> None:
    fields = {name: get_args(Preset.model_fields[name].annotation) for name in ("method", "spacing")}
    assert fields == {"method": METHODS, "spacing": tuple(SPACINGS)}
    assert get_args(Continuation.model_fields["mode"].annotation) == get_args(GuidanceMode)


# Continuing what is committed


def committed(positions: np.ndarray[Any, Any], seen_ns: int, taken_over_ns: int) -> ActionChunk:
    return ActionChunk("cell_1", ARX.joint_names, seen_ns, taken_over_ns, 33_333_333, positions)


@pytest.mark.parametrize("preset", ["exact", "few"])
def test_what_is_committed_comes_back_in_robot_units(spy: Spy, tmp_path: Path, preset: str) -> None:
    """Taken over 200 ms after the observation: six actions lie before that, one more is pinned. Deltas start at the joints seen now."""
    presets = {"exact": {"steps": 10}, "few": {"method": "ab3", "steps": 4}}
    policy = nano(checkpoint=checkpoint_with(tmp_path / "x", {"presets": presets}), preset=preset, guidance="hard")
    policy.warm_up(SENTENCE)
    plan = READY + 0.02 * np.sin(np.arange(50)[:, None] / 9 + np.arange(14))
    tail = committed(plan, SECOND - 200 * MS, SECOND)
    inference = policy.infer(observation(), SENTENCE, tail=lambda: tail)
    chunk = inference.chunk
    np.testing.assert_allclose(chunk.positions[:7], plan[1:8], atol=2e-6)
    assert np.abs(chunk.positions[7:] - plan[8:49].mean()).max() > 1e-3
    assert inference.guidance == "guided" and inference.pinned == 7, "warming up left no trace"


def test_without_a_tail_guidance_changes_no_bit(spy: Spy) -> None:
    free, asked = nano(guidance="off"), nano(guidance="soft")
    chunks = [policy.infer(observation(), SENTENCE, tail=lambda: None).chunk.positions for policy in (free, asked)]
    assert np.array_equal(*chunks) and spy.guidance is None


def test_the_tail_is_asked_for_as_late_as_can_be(spy: Spy) -> None:
    """While the engine works on the pictures the command process takes the last chunk over: its tail comes meanwhile."""
    asked: list[bool] = []
    nano(guidance="soft").infer(observation(), SENTENCE, tail=lambda: asked.append("now" in spy.given))
    assert asked == [True]


def test_how_a_chunk_continues_stands_in_the_manifest_and_may_be_chosen(spy: Spy, tmp_path: Path) -> None:
    checkpoint = checkpoint_with(tmp_path / "x", {"guidance": {"mode": "soft", "soft_s": 0.1}})
    tail = committed(np.tile(READY, (50, 1)), SECOND - 200 * MS, SECOND)
    weights = {}
    for mode in (None, "hard", "soft", "off"):
        nano(checkpoint=checkpoint, guidance=mode).infer(observation(), SENTENCE, tail=lambda: tail)
        weights[mode] = None if spy.guidance is None else spy.guidance.weights.tolist()
    assert weights[None] == weights["soft"] != weights["hard"] and weights["off"] is None
    assert weights["hard"] == [1.0] * 7 + [0.0] * 43
    assert 0 < weights["soft"][7] < 1 and weights["soft"][11] == 0


def test_gradients_ask_for_an_engine_that_has_them(spy: Spy) -> None:
    assert refusal(ConfigurationError, guidance="pinv").startswith("guidance: 'pinv' asks for an engine with gradients")
