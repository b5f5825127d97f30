"""``edgecnn completion``."""

from __future__ import annotations

import argparse
import sys

HELP = "print what makes a shell complete edgecnn's commands and options"
EXAMPLES = (
    'eval "$(edgecnn completion bash)"',
    "edgecnn completion fish > ~/.config/fish/completions/edgecnn.fish",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell that completes")


def run(options: argparse.Namespace) -> int:
    """``edgecnn completion SHELL``."""
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode(["edgecnn"], shell=options.shell).rstrip() + "\n")
    return 0
