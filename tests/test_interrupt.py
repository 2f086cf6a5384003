"""Ctrl-C before a verb has begun: exit code 130 and no traceback."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from interrupt_kit import interrupted_at

WHILE_LOADING = (
    interrupted_at("medcurate.cli.build")
    + """
from medcurate.__main__ import main
main()
"""
)
BEFORE_THE_VERB = """
from medcurate.cli import main

def app():
    raise KeyboardInterrupt

main.app = app
main.run()
"""


@pytest.mark.parametrize("code", [WHILE_LOADING, BEFORE_THE_VERB], ids=["loading", "before the verb"])
def test_ctrl_c_leaves_no_traceback(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_that_a_shell_has_ignored_stays_so() -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + WHILE_LOADING
    command = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_command_is_the_one_that_takes_it() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, name = project["project"]["scripts"]["medcurate"].partition(":")
    assert getattr(import_module(module), name) is import_module("medcurate.__main__").main
