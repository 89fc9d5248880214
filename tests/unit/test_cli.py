"""The command line: quick help, and one sentence with exit code 2 for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from internvla_a1_ros import __version__
from internvla_a1_ros.cli.main import VERBS, main

HEAVY = ("torch", "mujoco", "rclpy", "cv2", "transformers", "tokenizers")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the one sentence that `words` end with."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err.removeprefix("error: ").rstrip("\n")


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Return what `words` print; a verb that ends well may say so by exit code 0."""
    monkeypatch.setenv("COLUMNS", "200")
    try:
        main(list(words))
    except SystemExit as end:
        assert end.code in (0, None)
    return capsys.readouterr().out


def loaded(*words: str) -> set[str]:
    """Run the command in a fresh interpreter; return which of the heavy packages it imported."""
    script = (
        f"import sys\nfrom internvla_a1_ros.cli.main import main\ntry:\n    main({list(words)!r})\nexcept SystemExit as end:\n"
        f"    assert end.code in (0, None), end.code\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["robots"], ["up", "--help"], ["demo", "--help"]])
def test_asking_does_not_wait_for_anything_heavy(words: list[str]) -> None:
    assert loaded(*words) == set()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(capsys, monkeypatch, *words)
    assert all(verb in text and sentence in text for verb, sentence in VERBS.items())


def test_every_verb_of_the_table_exists_and_explains_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in VERBS:
        assert f"internvla-a1 {verb}" in printed(capsys, monkeypatch, verb, "--help"), verb


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(capsys, monkeypatch, "--version") == f"{__version__}\n"


def test_unknown_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "robot") == "unknown verb 'robot', did you mean 'robots'?; `internvla-a1 --help` lists them"
    assert refusal(capsys, "fly") == "unknown verb 'fly'; `internvla-a1 --help` lists them"
    assert refusal(capsys, "--robot", "x") == "unknown verb '--robot', did you mean 'robots'?; `internvla-a1 --help` lists them"


def test_robots_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(capsys, monkeypatch, "robots")
    assert "arx_ac_one" in text and "100 Hz" in text and "genie1_sim" in text


def test_a_robot_is_explained(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(capsys, monkeypatch, "robots", "arx_ac_one")
    for expected in ("left_joint1", "right_gripper", "-3.14", "2.618", "/arm_slave_l_status", "/arm_master_r_status", "compressed, 90 Hz"):
        assert expected in text, expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["robots", "arx_ac_on"], "unknown robot 'arx_ac_on', did you mean 'arx_ac_one'?"),
        (["robots", "/nowhere/robot.yaml"], "/nowhere/robot.yaml: cannot be read: No such file or directory"),
        (["up", "express_sortin"], "unknown application 'express_sortin', did you mean 'express_sorting'? (known: "),
        (["up", "bakery"], "unknown application 'bakery' (known: express_sorting,"),
        (["up", "--robot", "panda"], "unknown robot 'panda' (known: "),
        (["up", "--checkpoint", "nanno"], "checkpoint 'nanno': no such folder, did you mean 'nano'?"),
        (["up", "--sim", "--domain-id", "500"], "domain id: got 500, expected 0 to 101"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, *words).startswith(sentence)


def test_a_profile_written_wrong_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("name: mine\nvendr: me\n")
    assert refusal(capsys, "robots", str(profile)) == f"{profile}: unknown key 'vendr', did you mean 'vendor'?"


def test_an_unknown_option_ends_with_code_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "internvla_a1_ros.cli.main", "up", "--checkpiont", "nano"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert "No such option: --checkpiont" in done.stderr and "--checkpoint" in done.stderr and "Traceback" not in done.stderr


def test_up_ends_with_code_1_and_the_reason_when_a_process_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A command process that cannot be configured ends everything; here each process is one that ends at once."""
    from internvla_a1_ros.runtime import supervisor

    monkeypatch.setattr(supervisor, "command_line", lambda process, extra=(): [sys.executable, "-c", "raise SystemExit(2)"])
    with pytest.raises(SystemExit) as caught:
        main(["up", "--domain-id", "55"])
    said = capsys.readouterr().err
    assert caught.value.code == 1 and said.startswith("error: ") and "ended with code 2" in said and said.count("\n") == 1
