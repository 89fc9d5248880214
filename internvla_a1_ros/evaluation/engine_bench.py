"""Times engines against each other: each in a process of its own, chunk after chunk in turn, all on the same observation."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.mapped import peak_bytes

GIB = 2**30
STAGES = ("encode", "prefix", "generate", "flow")
TOLD_S = 3600.0  # a process that says nothing for an hour is lost


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to run the model, written `engine[:precision][@preset]`, e.g. `onnx:int8@fast`."""

    engine: str
    precision: str
    preset: str

    def __str__(self) -> str:
        precision = "" if self.precision == "float32" else f":{self.precision}"
        return self.engine + precision + ("" if self.preset == "exact" else f"@{self.preset}")

    @classmethod
    def parse(cls, text: str) -> Contestant:
        """Raises ConfigurationError for an engine or precision that is unknown."""
        from internvla_a1_ros.engines import engine_and_precision

        engine, _, preset = text.partition("@")
        return cls(*engine_and_precision(engine), preset or "exact")


@dataclass(frozen=True, slots=True)
class Task:
    """What every contestant does. `flow`: method, steps and spacing of each preset."""

    folder: Path
    threads: int
    device: str
    seed: int
    flow: dict[str, tuple[str, int, str]]


@dataclass(slots=True)
class Result:
    """What one contestant did: seconds of every chunk and of its stages, the last chunk itself [H*D]."""

    load_to_first_s: list[float] = field(default_factory=list)
    chunks_s: list[float] = field(default_factory=list)
    stages_s: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    peak_gib: float = 0.0
    actions: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.chunks_s)

    def stage_s(self, stage: str) -> float:
        return statistics.median(self.stages_s[stage])

    def take(self, told: dict[str, Any]) -> None:
        """Add what a worker told of one chunk."""
        self.chunks_s.append(sum(told["stages"].values()))
        for stage, seconds in told["stages"].items():
            self.stages_s[stage].append(seconds)
        self.peak_gib, self.actions = max(self.peak_gib, told["peak_gib"]), told["actions"]


def compete(contestants: list[Contestant], task: Task, chunks: int, together: bool, say: Callable[[str], None]) -> dict[str, Result]:
    """Let every contestant make `chunks` chunks after one that warms it up.

    `together`: all are loaded at once and take turns chunk by chunk; else, where memory holds only one, they take turns in two
    rounds. Raises ConfigurationError with what a contestant said when it failed.
    """
    results = {str(contestant): Result() for contestant in contestants}
    rounds = [chunks] if together else [chunks - chunks // 2, chunks // 2]
    for wanted in (n for n in rounds if n):
        groups = [contestants] if together else [[contestant] for contestant in contestants]
        for group in groups:
            with workers(group, task) as running:
                for name, connection in running.items():
                    say(f"{name}: loading")
                    results[name].load_to_first_s.append(asked(name, connection, "load")["load_to_first_s"])
                for i in range(wanted):
                    for name, connection in running.items():
                        results[name].take(asked(name, connection, "chunk"))
                        say(f"{name}: chunk {i + 1} of {wanted} in {results[name].chunks_s[-1]:.3g} s")
    return results


@contextmanager
def workers(contestants: list[Contestant], task: Task) -> Iterator[dict[str, Connection]]:
    """Start a process for each contestant; end them, whatever happens."""
    context = multiprocessing.get_context("spawn")
    processes, connections = [], {}
    try:
        for contestant in contestants:
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, contestant, task), daemon=True)
            process.start()
            there.close()
            processes.append(process)
            connections[str(contestant)] = here
        yield connections
    finally:
        for connection in connections.values():
            connection.close()
        for process in processes:
            process.terminate()
            process.join()


def asked(name: str, connection: Connection, what: str) -> dict[str, Any]:
    try:
        connection.send(what)
        if not connection.poll(TOLD_S):
            raise ConfigurationError(f"engine '{name}' has said nothing for {TOLD_S:.0f} s")
        told: dict[str, Any] = connection.recv()
    except (EOFError, OSError):
        raise ConfigurationError(f"engine '{name}': its process ended; was memory exhausted?") from None
    if "error" in told:
        raise ConfigurationError(f"engine '{name}': {told['error']}")
    return told


def work(connection: Connection, contestant: Contestant, task: Task) -> None:
    """The contestant's process: answers "load" once, then "chunk" as often as asked."""
    try:
        from internvla_a1_ros.engines import reference, torch_engine  # noqa: F401 - importing torch is no part of loading

        runner = None
        while True:
            what = connection.recv()
            if what == "load":
                began = time.perf_counter()
                runner = Runner(contestant, task)
                runner.chunk()
                connection.send({"load_to_first_s": time.perf_counter() - began})
            elif runner is not None:
                connection.send(runner.chunk())
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        pass
    except Exception as error:  # noqa: BLE001 - the parent says it in one sentence
        connection.send({"error": str(error).splitlines()[0] if str(error) else type(error).__name__})


class Runner:
    """An engine and the observation it works on."""

    def __init__(self, contestant: Contestant, task: Task) -> None:
        import torch

        from internvla_a1_ros.engines import make_engine
        from internvla_a1_ros.evaluation.as_released import AsReleased
        from internvla_a1_ros.evaluation.given import Given
        from internvla_a1_ros.model.integrators import make_plan

        torch.set_num_threads(task.threads)
        self.as_released = contestant.engine == "reference"
        if self.as_released:
            self.engine: Any = AsReleased.load(task.folder, getattr(torch, contestant.precision), task.device, None)
        else:
            self.engine = make_engine(
                contestant.engine, task.folder, threads=task.threads, precision=contestant.precision, device=task.device, build=True
            )
        self.plan = make_plan(*task.flow[contestant.preset])
        self.wait = torch.cuda.synchronize if task.device.startswith("cuda") else lambda: None
        self.given = Given.draw(self.engine.sizes, task.seed)
        past, self.now = self.given.pictures.chunk(2)
        self.past_latents = None if self.as_released else self.engine.encode(past).clone()

    def chunk(self) -> dict[str, Any]:
        """One cycle as the policy runs it; the yardstick encodes both frames, the engines keep the past one's latents."""
        engine, given, laps = self.engine, self.given, [time.perf_counter()]

        def lap() -> None:
            self.wait()
            laps.append(time.perf_counter())

        if self.past_latents is None:
            past, now = engine.encode(given.pictures).chunk(2)
        else:
            past, now = self.past_latents, engine.encode(self.now)
        lap()
        prefix = engine.prefix(given.pixels, given.ids, given.mask)
        lap()
        cache = engine.generate(prefix, past, now, given.views)
        lap()
        actions = engine.flow(cache, given.state, given.noise, self.plan)
        lap()
        return {
            "stages": dict(zip(STAGES, (after - before for before, after in zip(laps, laps[1:], strict=False)), strict=True)),
            "peak_gib": peak_bytes() / GIB,
            "actions": actions.float().cpu().flatten().tolist(),
        }


def read_s(path: Path) -> float:
    """Seconds to read a file from the disk, not from memory."""
    forget(path)
    buffer, began = bytearray(1 << 24), time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began


def forget(path: Path) -> None:
    """Ask the system to drop a file's pages from memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sgemm_rates(threads: int, side: int = 2048, tries: int = 9) -> tuple[float, float]:
    """Multiply-adds, as two operations each, a second of the plain float32 product and of the one with a packed weight."""
    import torch

    from internvla_a1_ros.engines.kernels import Linear

    torch.set_num_threads(threads)
    with torch.inference_mode():
        a, packed = torch.randn(side, side), Linear(torch.randn(side, side), rows=side)
        out = torch.empty(side, side)
        rates = []
        for product in (lambda: torch.mm(a, a, out=out), lambda: packed(a)):
            product()
            times = []
            for _ in range(tries):
                began = time.perf_counter()
                product()
                times.append(time.perf_counter() - began)
            rates.append(2 * side**3 / statistics.median(times))
    return rates[0], rates[1]


def memory_rate(threads: int, mebibytes: int = 512, tries: int = 5) -> float:
    """Bytes a second that a sum over a large array reads."""
    import torch

    torch.set_num_threads(threads)
    array = torch.ones(mebibytes << 18)
    times = []
    for _ in range(tries):
        began = time.perf_counter()
        array.sum()
        times.append(time.perf_counter() - began)
    return array.numel() * 4 / statistics.median(times)
