"""The loops that live, replayed and simulated runs share: inbox and time in, outbox out. No ROS, no clock."""
