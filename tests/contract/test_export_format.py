"""Built engines are found by a key that holds no source code: whoever changes what is exported raises FORMAT, and this says so."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

from tiny import TINY, TINY_2B  # noqa: E402

from internvla_a1_ros.engines.artefact import FORMAT  # noqa: E402
from internvla_a1_ros.engines.dialect import Dialect  # noqa: E402
from internvla_a1_ros.engines.exporting import record  # noqa: E402
from internvla_a1_ros.engines.stages import stages  # noqa: E402
from internvla_a1_ros.engines.weights import DrawnSource  # noqa: E402

NOTED = {1: "48d3fed6c6e91383", 2: "f8ccfd39325e8458", 3: "eb59e279243fd10c"}  # FORMAT -> digest of the graphs it stands for


def digest() -> str:
    """Of every node of every stage of both layouts, in each way to write them; numbers are left out, they are the machine's."""
    told = hashlib.sha256()
    for sizes in (TINY, TINY_2B):
        source = DrawnSource(sizes, 0)
        for dialect, dtype in (
            (Dialect(fused=True), torch.float32),
            (Dialect(fused=True, int8=True), torch.float32),
            (Dialect(fused=False), torch.float16),
        ):
            for name, stage in stages(sizes, 1).items():
                graph = record(source, stage, dialect, dtype)
                nodes = [(node.op, node.inputs, node.outputs, node.domain, sorted(node.attributes.items())) for node in graph.nodes]
                shapes = {key: (tuple(tensor.shape), str(tensor.dtype)) for key, tensor in graph.constants.items()}
                matrices = {key: (matrix.shape, matrix.order) for key, matrix in graph.matrices.items()}
                told.update(repr((name, nodes, shapes, matrices, sorted(graph.quantised), list(graph.weights))).encode())
    return told.hexdigest()[:16]


def test_what_is_exported_has_not_changed_unnoticed() -> None:
    found, following = digest(), max(NOTED) + 1
    assert NOTED.get(FORMAT) == found, (
        f"the exported graphs have changed: raise FORMAT in engines/artefact.py to {following} and note here {following}: '{found}', "
        "so that engines built before are built anew"
    )
