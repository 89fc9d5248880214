"""A server for tests: a made-up policy that notes what it is asked, behind the real websocket on a port of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.core.types import ActionChunk, Frame, Observation
from internvla_a1_ros.evaluation.serving import PolicyServer, bound_socket
from internvla_a1_ros.evaluation.serving_message import MessageReader, Names
from internvla_a1_ros.evaluation.serving_policy import metadata
from internvla_a1_ros.evaluation.serving_session import Steps
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.robots.profile import RobotProfile, load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint

ARX = load_profile("arx_ac_one")
NANO = find_checkpoint("nano")
CHUNK = 50
WAIT_S = 10.0


def picture(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def observed(value: int = 0, **more: Any) -> dict[str, Any]:
    """A message whose pictures are all `value` grey and whose joints are all 0.01 * `value`."""
    images = {name: picture(value) for name in ("head", "left", "right")}
    return {"state": np.full(14, value * 0.01), "images": images, "prompt": "go", **more}


@dataclass
class FakePolicy:
    """Answers action k of a joint with the state + k; `failure` is raised instead. It waits for its `gate`, or for one of `permits`."""

    profile: RobotProfile = ARX
    asked: list[tuple[Observation, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    permits: threading.Semaphore | None = None
    failure: Exception | None = None

    def infer(self, observation: Observation, instruction: str, **_: Any) -> Inference:
        self.asked.append((observation, instruction))
        self.begun.release()
        assert self.permits.acquire(timeout=WAIT_S) if self.permits else self.gate.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure
        positions = observation.joints.positions + np.arange(CHUNK)[:, None]
        stamp = observation.stamp_ns
        chunk = ActionChunk(self.profile.name, self.profile.joint_names, stamp, stamp, 33_333_333, positions)
        return Inference(chunk, {"encode": 0.001, "flow": 0.002})

    def knows(self, frame: Frame) -> bool:
        return False

    def look_ahead(self, frame: Frame) -> None:
        raise AssertionError

    def forget(self) -> None:
        raise AssertionError

    def seen(self, i: int = -1) -> tuple[int, int]:
        """Grey of the present and the past picture of the head, of one of the observations asked about."""
        now, past = self.asked[i][0].current[0], self.asked[i][0].past[0]
        assert now is not None and past is not None
        return int(now.rgb[0, 0, 0]), int(past.rgb[0, 0, 0])


@dataclass
class Running:
    """A server that answers at `port`, and what it said."""

    port: int
    policy: FakePolicy
    said: list[str]
    server: PolicyServer

    @property
    def waiting(self) -> int:
        """How many observations wait behind the one that is computed."""
        return self.server._thread._work_queue.qsize()


def fake_server(
    policy: FakePolicy, *, steps: Steps | None = None, names: Names | None = None, said: list[str] | None = None
) -> PolicyServer:
    reader = MessageReader(policy.profile, names or Names(), "")
    told = metadata(load_manifest(NANO), policy.profile, CHUNK)
    lines: list[str] = [] if said is None else said
    return PolicyServer(policy, policy.profile, HistorySpec(), reader, steps or Steps(), told, lines.append)


@contextmanager
def answering(server: PolicyServer) -> Iterator[int]:
    """Run `server` in a thread of its own and yield its port; it is closed as Ctrl-C closes it."""
    listener, address = bound_socket("127.0.0.1", 0)
    ready = threading.Event()
    closing: list[Callable[[], Any]] = []

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        closing.append(lambda: loop.call_soon_threadsafe(stop.set))
        await server.run(listener, stop, ready.set)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(WAIT_S)
        yield int(address.rpartition(":")[2])
    finally:
        closing[0]()
        thread.join(WAIT_S)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def serving(
    *, steps: Steps | None = None, names: Names | None = None, profile: RobotProfile = ARX, closed: bool = False
) -> Iterator[Running]:
    """A server with a made-up policy, whose gate is open unless `closed`."""
    policy, said = FakePolicy(profile), []
    if not closed:
        policy.gate.set()
    server = fake_server(policy, steps=steps, names=names, said=said)
    with answering(server) as port:
        yield Running(port, policy, said, server)


def connected(port: int) -> Any:
    """The client that others use."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    return WebsocketClientPolicy("127.0.0.1", port)
