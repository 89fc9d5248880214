"""The errors a user meets: each message says what was got, what was expected and where."""


class ConfigurationError(ValueError):
    """Something a person wrote or installed is wrong; the program does not start. One sentence, no traceback."""


class CheckpointError(ConfigurationError):
    """A model folder cannot be used: a file, a weight or a statistic is missing, unknown, misshapen or not finite."""


class RobotMismatch(ConfigurationError):
    """Checkpoint, statistics and robot profile do not describe the same robot."""


def suggestion(got: str, known: "list[str]") -> str:
    """Return ``", did you mean 'x'?"`` for the nearest known name, or an empty string where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(got, known, n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""
