"""The policy process over DDS with a checkpoint of the 2B layout: jpegs in, chunks out."""

from __future__ import annotations

from pathlib import Path

from harness import listening, running, wired
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.cli.make_nano import make_nano
from internvla_a1_ros.core.types import ActionChunk
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.runtime.deployment import Process, find_checkpoint
from internvla_a1_ros.runtime.wire_chunks import chunk_from_message


def test_a_2b_checkpoint_makes_chunks(domain_id: int, tmp_path: Path) -> None:
    checkpoint = tmp_path / "nano_2b"
    make_nano(checkpoint, 0, layout="2b")
    (checkpoint / "manifest.yaml").write_text((find_checkpoint("nano") / "manifest.yaml").read_text())
    plan = (
        Process("cameras", "", "internvla_a1_ros.nodes.bench_cameras", {"width": 320, "height": 240}, lifecycle=False),
        Process("policy", "policy_node", "internvla_a1_ros.nodes.policy_node", {"robot": "arx_ac_one", "checkpoint": str(checkpoint)}),
    )
    messages: list[JointTrajectory] = []
    with wired(domain_id) as robot, listening(domain_id) as operator, running(plan, domain_id, tmp_path) as supervisor:
        robot.node.create_subscription(JointTrajectory, "policy/chunk", messages.append, qos.NEWEST)
        assert operator.wait_for(lambda: len(messages) > 3, 60.0), (tmp_path / "policy.log").read_text()
        assert supervisor.check() is None
        for message in messages:
            chunk = chunk_from_message(message, robot.clock.from_stamp, robot.profile)
            assert isinstance(chunk, ActionChunk) and chunk.positions.shape == (50, 14)
