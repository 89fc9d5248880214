"""The only place of rclpy: callbacks store, loops step, borders convert."""
