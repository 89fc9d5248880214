"""What stands between a plan and the robot: checks, limiter, state machine. Pure; cannot see the model."""
