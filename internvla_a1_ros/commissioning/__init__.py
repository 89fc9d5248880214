"""What an integrator does with a robot before it works: pure functions over frames, joints and graphs that nodes hand in. No ROS."""
