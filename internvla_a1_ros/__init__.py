"""InternVLA-A1 on ROS 2: from three cameras and the joints to guarded commands of a two-armed robot."""

__version__ = "0.1.0"
