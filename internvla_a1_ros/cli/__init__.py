"""The command `internvla-a1`: one file per verb."""
