"""`Policy.infer`: an observation in robot units goes in, a chunk in robot units comes out."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError, suggestion
from internvla_a1_ros.core.types import ActionChunk, FloatArray, Frame, JointState, Observation
from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.model.integrators import FlowPlan, make_plan
from internvla_a1_ros.policy.agreement import check_robot_type, check_statistics, check_weights
from internvla_a1_ros.policy.grippers import GripperMap
from internvla_a1_ros.policy.guiding import GuidanceMode, Guide, check_mode
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.policy.manifest import Manifest, load_manifest
from internvla_a1_ros.policy.pictures import Look, patches, viewable
from internvla_a1_ros.policy.statistics import Statistics, StatisticsFile
from internvla_a1_ros.policy.tokenizer import PrefixTokenizer, PrefixTokens
from internvla_a1_ros.policy.transforms import Pad, StateTransform, action_transform
from internvla_a1_ros.robots.profile import RobotProfile

Tail = Callable[[], ActionChunk | None]

_AHEAD = 8  # pictures prepared before they are asked for: of a stalled stream no more than that are held
_OVERSHOOT = 0.1  # of a joint's range: so far beyond a limit a plan is taken to mean the limit
_KEPT_LATENTS = 64  # frames of all cameras: 2 s at 10 chunks a second and three cameras


class Policy:
    """One checkpoint on one robot. Belongs to one thread."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: PrefixTokenizer,
        manifest: Manifest,
        statistics: Statistics,
        profile: RobotProfile,
        instance: str,
        plan: FlowPlan,
        seed: int,
        guidance: GuidanceMode = "off",
        noise: float = 1.0,
    ) -> None:
        self.manifest = manifest
        self._engine = engine
        self._tokenizer = tokenizer
        self._profile = profile
        self._instance = instance
        self._plan, self._noise = plan, noise
        pad = Pad(profile.dof, engine.sizes.state_width)
        scale = manifest.actions.normalisation
        self._state = StateTransform(statistics.state.scale(scale), pad)
        action_pad = Pad(profile.dof, engine.sizes.action_width)
        self._action = action_transform(manifest.actions.mode, profile.is_delta, statistics.action.scale(scale), action_pad)
        self._grippers = GripperMap(profile)
        self._guidance = guidance
        self._guide = self._new_guide()
        self._generator = torch.Generator().manual_seed(seed)
        self._draws = 0
        self._latents: OrderedDict[tuple[str, int], Tensor] = OrderedDict()
        self._tokens: tuple[str, bytes, PrefixTokens] | None = None
        self._enough = engine.sizes.picture if manifest.pictures.jpeg == "reduced" else None
        self._lookers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="look")
        self._device = getattr(engine, "device", "cpu")  # pictures are prepared where they are read
        black = torch.zeros(1, 3, *engine.sizes.picture, device=self._device)
        self._unseen = patches(black, engine.sizes)[0]  # of a missing view, which is masked
        self._ahead: dict[Frame, Future[Look]] = {}
        self._past_wanted = self._past_known = 0

    @property
    def noise(self) -> float:
        """What the noise that a chunk begins from is multiplied by."""
        return self._noise

    @property
    def latent_hit_rate(self) -> float:
        """Share of past frames whose latents were already known, nan before the first."""
        return self._past_known / self._past_wanted if self._past_wanted else float("nan")

    def knows(self, frame: Frame) -> bool:
        """Return whether the latents of `frame` are still at hand."""
        return (frame.camera, frame.stamp_ns) in self._latents

    def look_ahead(self, frame: Frame) -> None:
        """Begin to decode and prepare a picture that the next observation will probably hold."""
        if frame not in self._ahead and len(self._ahead) < _AHEAD:
            self._ahead[frame] = self._submit(frame)

    def forget(self) -> None:
        """Drop every latent kept."""
        self._latents.clear()

    def skip(self, draws: int) -> None:
        """Draw noise `draws` times and drop it, to go on where another policy of the same seed was."""
        sizes = self._engine.sizes
        for _ in range(draws):
            torch.randn(sizes.chunk, sizes.action_width, generator=self._generator)
        self._draws += draws

    def _new_guide(self) -> Guide:
        names, soft_s = self._profile.joint_names, self.manifest.guidance.soft_s
        return Guide(self._guidance, self._instance, names, self._action, self._grippers, soft_s)

    def warm_up(self, instruction: str) -> None:
        """Run whole cycles on a grey picture, free and guided, so that the first real one is as fast as any; leaves no trace."""
        cameras = self._profile.cameras
        now_ns = 1_000_000_000
        frames = [Frame(camera.name, now_ns, now_ns, np.full((480, 640, 3), 127, dtype=np.uint8)) for camera in cameras]
        middle = (self._profile.lower + self._profile.upper) / 2
        state = self._generator.get_state()
        dt_ns, rest = round(self.manifest.actions.dt_s * 1e9), np.tile(middle, (self._engine.sizes.chunk, 1))
        tail = ActionChunk(self._instance, self._profile.joint_names, now_ns * 3 // 4, now_ns, dt_ns, rest)
        observation = Observation(now_ns, tuple(frames), tuple(frames), JointState(now_ns, middle), 0)
        for _ in range(2):
            self.infer(observation, instruction, imagine=True)
            if self._guidance != "off":
                self.infer(observation, instruction, tail=lambda: tail)
        self._generator.set_state(state)
        self._guide = self._new_guide()
        self._past_wanted = self._past_known = self._draws = 0
        self.forget()

    def infer(self, observation: Observation, instruction: str, *, imagine: bool = False, tail: Tail | None = None) -> Inference:
        """Return the chunk for `observation`, with the imagined pictures [V, h, w, 3] where asked for.

        The engine encodes the first pictures while others are still being decoded.

        `tail` is asked just before the flow, as late as can be, for what the command process has committed.
        Raises ValueError where a picture does not decode or the model's answer is not finite.
        """
        watch = _Stopwatch()
        self._drop_oldest()  # where a picture does not decode, cycle after cycle, it does not come to the end
        mask = np.array([frame is not None for frame in observation.current])
        sizes, engine = self._engine.sizes, self._engine
        fresh = self._to_encode(observation)
        looks = self._looks([frame for frame in (*observation.current, *fresh) if frame is not None])
        # By the order of views, not by which is decoded first: together or not, a picture's latents differ in their last bits.
        for some in filter(None, (fresh[:1], fresh[1:]) if engine.encodes_early else (fresh,)):
            cosmos = torch.stack([looks[frame].result().cosmos for frame in some])
            watch.lap("decode")
            self._remember(some, engine.encode(cosmos))
            watch.lap("encode")
        past, now = (self._latents_of(frames) for frames in (observation.past, observation.current))
        self._drop_oldest()
        watch.lap("encode")
        seen = [self._unseen if frame is None else looks[frame].result().patches for frame in observation.current]
        watch.lap("decode")

        pixels, tokens = torch.stack(seen), self._prefix_tokens(instruction, mask)
        state = self._state.forward(self._grippers.state(observation.joints.positions))
        noise = self._noise * torch.randn(sizes.chunk, sizes.action_width, generator=self._generator)
        self._draws += 1
        watch.lap("prepare")
        prefix = engine.prefix(pixels, torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask))
        watch.lap("prefix")
        cache = engine.generate(prefix, past, now, torch.from_numpy(mask))
        watch.lap("generate")
        continued = self._guide.guidance(tail() if tail is not None else None, observation, *self._times(observation), sizes.chunk)
        watch.lap("guide")
        raw = engine.flow(cache, torch.from_numpy(state).float(), noise, self._plan, continued.guidance)
        watch.lap("flow")
        imagined = viewable(engine.decode(cache)) if imagine else None
        if imagine:
            watch.lap("imagine")
        chunk = self._chunk(raw.double().cpu().numpy(), observation)
        watch.lap("finish")
        return Inference(chunk, watch.laps_s, imagined, continued.code, continued.pinned, self._draws)

    def _chunk(self, raw: FloatArray, observation: Observation) -> ActionChunk:
        state = self._grippers.state(observation.joints.positions)
        positions = laid_within(self._grippers.action(self._action.inverse(raw, state)), self._profile.lower, self._profile.upper)
        return ActionChunk(self._instance, self._profile.joint_names, observation.stamp_ns, *self._times(observation), positions)

    def _times(self, observation: Observation) -> tuple[int, int]:
        """Return when the first action is to be reached, and the step from one to the next."""
        dt_ns = round(self.manifest.actions.dt_s * 1e9)
        return observation.stamp_ns + self.manifest.actions.offset * dt_ns, dt_ns

    # Pictures and latents

    def _to_encode(self, observation: Observation) -> list[Frame]:
        """Return the frames whose latents are not known yet, each once; note how often the past ones were."""
        wanted: OrderedDict[tuple[str, int], Frame] = OrderedDict()
        for past in observation.past:
            if past is not None:
                self._past_wanted += 1
                self._past_known += self.knows(past)
        for frame in (*observation.current, *observation.past):
            if frame is not None and not self.knows(frame):
                wanted[(frame.camera, frame.stamp_ns)] = frame
        return list(wanted.values())

    def _looks(self, frames: list[Frame]) -> dict[Frame, Future[Look]]:
        """Decode and prepare side by side, each frame once (it belongs to one thread): OpenCV and torch let go of the interpreter."""
        each_once = dict.fromkeys(frames)
        pending = {frame: self._ahead.pop(frame) if frame in self._ahead else self._submit(frame) for frame in each_once}
        for unused in self._ahead.values():
            unused.cancel()
        self._ahead.clear()
        return pending

    def _submit(self, frame: Frame) -> Future[Look]:
        return self._lookers.submit(lambda: Look.at(frame.look(self._enough), self._engine.sizes, self._device))

    def _remember(self, frames: list[Frame], latents: Tensor) -> None:
        for frame, latent in zip(frames, latents, strict=True):
            self._latents[(frame.camera, frame.stamp_ns)] = latent

    def _drop_oldest(self) -> None:
        """Called once the latents of this cycle are at hand: a past frame may be the oldest kept."""
        while len(self._latents) > _KEPT_LATENTS:
            self._latents.popitem(last=False)

    def _latents_of(self, frames: tuple[Frame | None, ...]) -> Tensor:
        """Return latents [V, z, lh, lw]; zeros for a missing view, which is masked."""
        known = [None if frame is None else self._latents[(frame.camera, frame.stamp_ns)] for frame in frames]
        empty = torch.zeros_like(next(latent for latent in known if latent is not None))
        return torch.stack([empty if latent is None else latent for latent in known])

    def _prefix_tokens(self, instruction: str, mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> PrefixTokens:
        """Tokenise once per instruction and set of views."""
        key = mask.tobytes()
        if self._tokens is None or self._tokens[:2] != (instruction, key):
            self._tokens = (instruction, key, self._tokenizer(instruction, mask))
        return self._tokens[2]


def load_policy(
    checkpoint: Path,
    profile: RobotProfile,
    instance: str,
    *,
    engine: str | Engine = "torch",
    preset: str | None = None,
    guidance: str | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> Policy:
    """Load a checkpoint for a robot, having checked that they agree; `engine` is a name, or one that is made already.

    Raises ConfigurationError in one sentence.
    """
    manifest = load_manifest(checkpoint)
    check_weights(manifest, checkpoint)
    check_robot_type(manifest, profile)
    statistics = StatisticsFile(checkpoint / "stats.json").of(manifest.robot_type)
    name = preset or manifest.default_preset
    if name not in manifest.presets:
        known = list(manifest.presets)
        raise ConfigurationError(f"preset: got '{name}', checkpoint '{manifest.name}' has {', '.join(known)}{suggestion(name, known)}")
    mode = guidance or manifest.guidance.mode
    made = make_engine(engine, checkpoint, threads=threads) if isinstance(engine, str) else engine
    checked = check_mode(mode, getattr(made, "differentiable", False))
    sizes = made.sizes
    check_statistics(statistics, sizes.robot_width, profile)
    statistics.check_steps(manifest.actions.normalisation, sizes.chunk)
    if sizes.views != len(profile.cameras):
        raise CheckpointError(
            f"checkpoint '{manifest.name}' looks through {sizes.views} cameras, robot '{profile.name}' has {len(profile.cameras)}"
        )
    tokenizer = PrefixTokenizer.load(checkpoint, sizes)
    chosen = manifest.presets[name]
    plan = make_plan(chosen.method, chosen.steps, chosen.spacing)
    return Policy(made, tokenizer, manifest, statistics, profile, instance, plan, seed, checked, chosen.noise)


def laid_within(positions: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Lay onto the limit [dof] what of a plan [H, dof] is a little beyond it: a learned number has noise, a limit has none.

    What is farther beyond stays as it is, and the command process refuses it: that is no noise, but another robot or unit.
    """
    nearest = np.clip(positions, lower, upper)
    return np.asarray(np.where(np.abs(positions - nearest) <= _OVERSHOOT * (upper - lower), nearest, positions))


class _Stopwatch:
    """Seconds from lap to lap; laps of one name add up."""

    def __init__(self) -> None:
        self.laps_s: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps_s[name] = self.laps_s.get(name, 0.0) + now - self._last
        self._last = now
