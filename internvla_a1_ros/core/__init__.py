"""What everything else is made of: types, history, synchronisation, timeline. numpy only; no torch, no ROS, no clock."""
