"""recorder_node: writes a bag of everything that a replay needs. It may stall or die; nobody depends on it.

A topic is subscribed to once somebody publishes on it, and as that publisher offers it; a robot's command topics only once the robot
is there: beside a listener on them no simulation would start. One thread takes messages, still serialised, and writes them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import threading
import time
import traceback
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from internvla_a1_ros import __version__
from internvla_a1_ros.bags.types import known_types
from internvla_a1_ros.bags.writing import BagWriter
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.command_report import key_values
from internvla_a1_ros.nodes.entities import NoExecutor
from internvla_a1_ros.nodes.lifecycle import run
from internvla_a1_ros.nodes.parameters import Parameter, declare, value
from internvla_a1_ros.nodes.robot import calibrated
from internvla_a1_ros.nodes.vendor import message_class

PARAMETERS = (
    Parameter("folder", "~/internvla_a1_recordings", "below which each recording gets a folder of its own"),
    Parameter("name", "recording", "with what the folder's name begins; the time follows"),
    Parameter("max_gb", 20.0, "most that this recording may take; then its oldest file goes", 0.1, 100000.0),
    Parameter("topics", [""], "absolute names of topics to record"),
    Parameter("commands", [""], "absolute names of the robot's command topics, recorded once one of `topics` is published"),
    Parameter("prefixes", [""], "every topic below these is recorded: /policy/, /command/"),
    Parameter("processes", "{}", "what was started with which parameters, as JSON; noted in the bag"),
)
DIAGNOSTICS = "/diagnostics"
TAKE_EVERY_S, LOOK_EVERY_S = 0.005, 0.3
# What others say while they come to rest belongs to the recording.
LISTENS_ON_S, SILENT_S = 2.5, 0.5
_TAKEN_AT_ONCE, _DEPTH = 200, 200


class RecorderNode(Node):
    """Owns the bag and the thread that writes it. Raises ConfigurationError where the bag cannot be written."""

    def __init__(self) -> None:
        super().__init__("recorder")
        declare(self, PARAMETERS)
        self._topics = frozenset(filter(None, value(self, "topics")))
        self._commands = frozenset(filter(None, value(self, "commands")))
        self._prefixes = tuple(filter(None, value(self, "prefixes")))
        if not self._topics and not self._prefixes:
            raise ConfigurationError("recorder: got no topics and no prefixes, expected what to record")
        self._processes = _processes(value(self, "processes"))
        self._clock_of_loop = NodeClock(self)
        started = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
        folder = _new(Path(value(self, "folder")).expanduser() / f"{value(self, 'name')}_{started}")
        self._writer = BagWriter(folder, max_bytes=round(value(self, "max_gb") * 1e9))
        self._taken: dict[str, tuple[Any, str, str, bool]] = {}
        self._left_out: set[str] = set()
        self._count, self._said_stopped, self._heard_s = 0, False, 0.0
        self._ending = threading.Event()
        self._checksums: dict[str, str] | None = None
        self._note()
        self._diagnostics = self.create_publisher(DiagnosticArray, DIAGNOSTICS, qos.COMMAND)
        self.create_timer(1.0, self._report)
        threading.Thread(target=self._sum_up, name="checksums", daemon=True).start()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()
        self.get_logger().info(f"recording into {folder}")

    def close(self) -> None:
        """Record until the others are silent, at most some seconds, and end the bag."""
        self._ending.set()
        self._thread.join(timeout=LISTENS_ON_S + 2.0)
        self._writer.close()

    # The recording thread

    def _run(self) -> None:
        try:
            looked_s = ended_s = -1.0
            while ended_s < 0 or time.monotonic() - ended_s < LISTENS_ON_S:
                now_s = time.monotonic()
                self._clock_of_loop.check()  # a jump of the system's clock: what comes is stamped by the new one
                if now_s - looked_s >= LOOK_EVERY_S:
                    looked_s = now_s
                    self._look()
                self._take()
                if ended_s >= 0 and now_s - max(ended_s, self._heard_s) > SILENT_S:
                    break
                if ended_s < 0 and self._ending.is_set():
                    ended_s = now_s
                time.sleep(TAKE_EVERY_S)
            self._take()
        except Exception as problem:
            # Nobody depends on a recording: it ends with what it has and says so, and everything else goes on.
            traceback.print_exc()
            self._writer.stopped = self._writer.stopped or f"recording stopped by a defect: {problem!r} ('{self._writer.folder}')"
        self._writer.close()

    def _look(self) -> None:
        """Subscribe to what is published since the last look."""
        for topic, kinds in self.get_topic_names_and_types():
            if not self._wanted(topic) or topic in self._taken or topic in self._left_out or not self.count_publishers(topic):
                continue
            try:
                self._subscribe(topic, kinds[0])
            except (ConfigurationError, KeyError) as problem:
                self._left_out.add(topic)
                self.get_logger().warning(f"'{topic}' is not recorded: {problem}")

    def _wanted(self, topic: str) -> bool:
        if topic in self._commands:
            return not self._topics.isdisjoint(self._taken)
        return topic in self._topics or topic.startswith(self._prefixes or ("\0",))

    def _subscribe(self, topic: str, kind: str) -> None:
        store = known_types({kind.split("/")[0]})
        if kind not in store.fielddefs:
            raise ConfigurationError(f"no definition of {kind} was found")
        definition, _ = store.generate_msgdef(kind, ros_version=2)
        offered = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        reliable = all(each.reliability == ReliabilityPolicy.RELIABLE for each in offered)
        latched = all(each.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in offered)
        asked = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        made = self.create_subscription(message_class(kind), topic, lambda _: None, asked, callback_group=NoExecutor(), raw=True)
        self._taken[topic] = (made, kind, definition, latched)

    def _take(self) -> None:
        for topic, (subscription, kind, definition, latched) in self._taken.items():
            for _ in range(_TAKEN_AT_ONCE):
                with subscription.handle:
                    taken = subscription.handle.take_message(subscription.msg_type, True)
                if taken is None:
                    break
                data, info = taken
                received_ns = self._ros_ns(int(info.get("received_timestamp") or 0))
                sent_ns = int(info.get("source_timestamp") or 0) or received_ns
                if topic.startswith(self._prefixes or ("\0",)) and topic != DIAGNOSTICS:  # on that we speak ourselves
                    self._heard_s = time.monotonic()
                self._count += self._writer.write(topic, kind, definition, bytes(data), received_ns, sent_ns, latched=latched)
        self._writer.flush(self._ros_ns(0))
        if self._checksums is not None:
            self._writer.write_metadata("checksums", self._checksums)
            self._checksums = None
        if self._writer.stopped and not self._said_stopped:
            self._said_stopped = True
            self.get_logger().error(self._writer.stopped)

    def _ros_ns(self, received_ns: int) -> int:
        """Receipts are on the system's clock, as ROS time is unless it is simulated."""
        clock = self._clock_of_loop
        return clock.to_ros(clock.now_ns()) if clock.simulated or received_ns <= 0 else received_ns

    # What is noted beside the messages

    def _note(self) -> None:
        packages = ("numpy", "torch", "onnxruntime", "opencv-python-headless", "ruckig", "mcap", "rosbags")
        versions = {"internvla_a1_ros": __version__, "python": platform.python_version(), "machine": platform.platform()}
        versions |= {name: found for name in packages if (found := _version(name))}
        self._writer.write_metadata("versions", versions)
        self._writer.write_metadata("processes", {name: json.dumps(told) for name, told in self._processes.items()})
        robots = {}
        for name, told in self._processes.items():
            if "robot" in told and told.get("executable") == "command_node":
                profile, _ = calibrated(str(told["robot"]), str(told.get("instance", "")), str(told.get("calibration", "")))
                robots[name] = profile.model_dump_json()
        self._writer.write_metadata("robots", robots)

    def _sum_up(self) -> None:
        """Checksums of the checkpoints' files; of some GB that takes a while, so beside everything else."""
        sums: dict[str, str] = {}
        for checkpoint in sorted({str(told["checkpoint"]) for told in self._processes.values() if "checkpoint" in told}):
            for path in sorted(Path(checkpoint).glob("*")):
                if path.is_file():
                    with path.open("rb") as file:
                        sums[str(path)] = _sha256(file)
        if sums:
            self._checksums = sums

    def _report(self) -> None:
        writer = self._writer
        level = DiagnosticStatus.ERROR if writer.stopped else DiagnosticStatus.WARN if self._left_out else DiagnosticStatus.OK
        status = DiagnosticStatus(level=level, name="recorder", hardware_id=writer.folder.name, message=writer.stopped or "recording")
        counts = {"messages": self._count, "topics": len(self._taken), "megabytes": writer.n_bytes * 1e-6, "files_dropped": writer.dropped}
        status.values = key_values({**counts, "left_out": ", ".join(sorted(self._left_out)), "folder": str(writer.folder)})
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _processes(text: str) -> dict[str, dict[str, Any]]:
    try:
        return {str(name): dict(told) for name, told in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(f"processes: got '{text[:60]}', expected a JSON object of objects") from None


def _new(folder: Path) -> Path:
    """Two recordings may begin within one second."""
    return next(each for each in (folder, *(folder.with_name(f"{folder.name}_{k}") for k in range(2, 1000))) if not each.exists())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
        time.sleep(0)  # lets the recording thread go first
    return digest.hexdigest()


def main() -> None:
    """Entry point of `ros2 run internvla_a1_ros recorder_node`."""
    sys.exit(run(RecorderNode))


if __name__ == "__main__":
    main()
