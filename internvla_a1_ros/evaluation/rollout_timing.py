"""What a cycle of a policy costs: processor time, which others on the same machine hardly change."""

from __future__ import annotations

import time
from collections.abc import Callable

from internvla_a1_ros.core.types import ActionChunk, Frame, Observation
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.runtime.policy_loop import Infers


class Timed:
    """The policy it is given, noting what each inference cost this process (s). An accelerator's time is not in it."""

    def __init__(self, policy: Infers) -> None:
        self._policy = policy
        self.spent_s: list[float] = []

    def infer(
        self, observation: Observation, instruction: str, *, imagine: bool = False, tail: Callable[[], ActionChunk | None] | None = None
    ) -> Inference:
        began_s = time.process_time()
        inference = self._policy.infer(observation, instruction, imagine=imagine, tail=tail)
        self.spent_s.append(time.process_time() - began_s)
        return inference

    def knows(self, frame: Frame) -> bool:
        return self._policy.knows(frame)

    def look_ahead(self, frame: Frame) -> None:
        self._policy.look_ahead(frame)

    def forget(self) -> None:
        self._policy.forget()
