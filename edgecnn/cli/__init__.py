"""The command line: one parser over the commands, and what every error means to the shell.

Each command is a module here: ``HELP``, ``arguments(parser)`` and ``run(options) -> exit status``. A module is imported
to build the parser, so what is heavy (numpy, torch, a runtime) is imported inside ``run``.
"""

from __future__ import annotations

import argparse
import gc
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from edgecnn import __version__
from edgecnn.budget import use
from edgecnn.cli import config
from edgecnn.cli.faults import interrupted, status_of, was_interrupted
from edgecnn.cli.options import add_memory
from edgecnn.cli.streams import flush
from edgecnn.errors import InputError, misspelt
from edgecnn.escaping import escape_unencodable
from edgecnn.progress import Talk, talk, talking

COMMANDS = (
    "export", "validate", "run", "init", "compare", "benchmark", "sweep", "inspect", "train", "scale", "study",
    "models", "targets", "devices", "recipes", "doctor", "schema", "completion",
)  # fmt: skip
"""In the order in which ``edgecnn --help`` lists them."""

DESCRIPTION = "Quantize a CNN once, emit the same integers for every runtime, and check them on each device."
EPILOG = """\
examples:
  edgecnn export mobilenet_v2_0.35_96 --target tflite --quantize int8 --weights demo --calibration demo --data demo
  edgecnn export mobilenet_v2 --target tflite --quantize int8 --weights FILE --calibration DIR --data DIR --max-drop 1
  edgecnn validate out/mobilenet_v2.tflite --data DIR --max-drop 1

exit status: 0 all checks passed; 1 a check failed; 2 the input is wrong, or your own code raised; 3 an optional library
or tool is missing; 70 a fault of edgecnn; 130 interrupted
"""
COMPLETING = "_ARGCOMPLETE"  # set in the environment by a shell that asks for completions
TRACEBACK = "--traceback"
TALK = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}
"""Options of every command, wherever they stand."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Every error is one line; ``--traceback`` shows where it came from."""
    gc.set_threshold(100_000, 50, 50)  # importing torch makes millions of objects that live on: 0.6 s less of 8
    words = list(sys.argv[1:] if argv is None else argv)
    details = TRACEBACK in words
    escape_unencodable(sys.stdout)
    try:
        wanted = next((TALK[word] for word in reversed(words) if word in TALK), "usual")
        with talking(Talk(wanted)):
            return _run([word for word in words if word not in (TRACEBACK, *TALK)])
    except KeyboardInterrupt:
        return interrupted()
    except BrokenPipeError:  # of what has no status but 0, a list
        flush()
        return 0
    except Exception as error:  # noqa: BLE001 - each has a line and a status
        if was_interrupted(error):
            return interrupted()
        return status_of(error, words, details=details)


def _run(words: Sequence[str]) -> int:
    parser, commands = _parser()
    if words and not words[0].startswith("-") and words[0] not in commands:
        raise InputError(f"{misspelt('command', words[0], commands)}; see `edgecnn --help`")
    given = words
    if words and words[0] in config.COMMANDS:
        words = [words[0], *config.configure(commands[words[0]], words[0], words[1:])]
    _known_options(words, parser if not words or words[0] not in commands else commands[words[0]])
    options = parser.parse_args(words)
    options.invocation = shlex.join(["edgecnn", *given])
    options.verbose = talk() is Talk.VERBOSE
    options.wide = getattr(options, "wide", False) or options.verbose
    with use(options.max_memory):
        status = import_module(f"edgecnn.cli.{options.command}").run(options)
    assert isinstance(status, int)
    return status


class _Append(argparse._AppendAction):
    """Append values; the first one takes the place of the default, which ``edgecnn.toml`` may give."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest, None) is self.default:
            setattr(namespace, self.dest, [])
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line of ``InputError`` that points to the help."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.register("action", "append", _Append)

    def error(self, message: str) -> NoReturn:
        """Raise ``InputError``."""
        raise InputError(f"{message}; see `{self.prog} --help`")


def _known_options(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Check that every option is one of the parser's, or of the actions inside it: it is named before what lacks.

    Raises:
        InputError: one is not; names the nearest.
    """
    options, inner = set[str](), [parser]
    for each in inner:
        for action in each._actions:
            options.update(action.option_strings)
            inner += action.choices.values() if isinstance(action, argparse._SubParsersAction) else ()
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name != "--" and not any(option.startswith(name) for option in options):
            raise InputError(f"{misspelt('option', name, options)}; see `{parser.prog} --help`")


def _add_common(parser: argparse.ArgumentParser, *, configured: bool) -> None:
    """Add what every command takes."""
    add_memory(parser)
    if configured:
        config.add_config(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="results alone: no progress and no notes")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more: each step, every figure and column")
    parser.add_argument(TRACEBACK, action="store_true", help="show where an error came from, on stderr")


def examples_of(module: Any, words: str) -> list[str]:
    """Return the examples of a command or an action in its module."""
    return [example for example in module.EXAMPLES if f"{example} ".startswith(f"edgecnn {words} ")]


def _parser() -> tuple[Parser, dict[str, Parser]]:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("edgecnn", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"edgecnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"edgecnn.cli.{name}")
        said = "\n  ".join(("examples:", *module.EXAMPLES[:2]))
        own = commands.add_parser(name, help=module.HELP, description=module.HELP, epilog=said, formatter_class=raw)
        module.arguments(own)
        for words, leaf in config.leaves(own, name).items():
            if leaf is not own:
                leaf.formatter_class, leaf.epilog = raw, "\n  ".join(("examples:", *examples_of(module, words)))
            _add_common(leaf, configured=name in (*config.COMMANDS, "run"))
    if COMPLETING in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser, commands.choices
