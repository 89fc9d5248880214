#!/usr/bin/env bash
# Sources ROS and this package, then does what it is told.
set -e
source /opt/ros/humble/setup.bash
source /opt/internvla_a1_ros/ros2_ws/install/setup.bash
exec "$@"
