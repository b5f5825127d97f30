"""``edgecnn init``."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgecnn.cli.config import FILE, OF_THE_REPORT, check, checking_parser, key_of, one, parser_of, settable, toml_type
from edgecnn.cli.streams import write_result
from edgecnn.errors import InputError
from edgecnn.escaping import toml_value

HELP = "write a commented edgecnn.toml, which `edgecnn run` reads"
EXAMPLES = (
    "edgecnn init mobilenet_v2_0.35_96 --weights demo --calibration demo --data demo --max-drop 1",
    "edgecnn init net.onnx --calibration images --data val --target tflite,onnx --device host,cortex-a72",
)
TAKEN = {"check": ("data", "device", "max_drop"), "export": ("calibration", "target"), "network": ("weights",)}
"""Options of each table that ``init`` takes on its command line."""

HEAD = """\
# Options of edgecnn. `edgecnn run` exports and validates every [[network]]; with --dry-run it says what that takes.
# Other commands read their table too; the command line wins. Relative paths begin at this file's folder.
# A line such as `# limit = 1` is an option that is not set.
"""
ABOUT = {
    "check": "what export, validate and benchmark check on, where and against which limits",
    "export": "of every network",
    "network": "a table for each network; it may hold every option of [check] and [export]",
}
AGAIN = """
# The same artifacts once more, with the options that change: another device, and its limits.
# [[network.validate]]
# device = "cortex-a72"
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the models, and the options that most networks need."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="as of export: each is a [[network]]")
    export = {action.dest: action for action in parser_of("export")._actions}
    for name in (name for names in TAKEN.values() for name in names):
        like = export[name]
        kind = like.type if callable(like.type) else str
        parser.add_argument(*like.option_strings, type=kind, metavar=like.metavar, help=like.help)
    parser.add_argument("-o", "--output", type=Path, default=FILE, metavar="FILE", help=f"to write (default {FILE})")
    parser.add_argument("--force", action="store_true", help="replace the file, if there is one")


def run(options: argparse.Namespace) -> int:
    """Write the file.

    Raises:
        InputError: it is there already, or an option does not fit.
    """
    from edgecnn.files import write_atomic

    path: Path = options.output
    if path.exists() and not options.force:
        raise InputError(f"{path} is there already; --force replaces it, -o FILE writes another")
    text = "\n".join(_lines(options))
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        given = text[error.start : error.end]
        raise InputError(f"a name holds {given!r}, which is no UTF-8 and so not for a TOML file; rename it") from None
    check(text, path)
    write_atomic(path, content)
    write_result(str(path))
    named = [] if path == FILE else ["--config", str(path)]
    write_result(f"next: {shlex.join(['edgecnn', 'run', '--dry-run', *named])}", command=True)
    return 0


def _lines(options: argparse.Namespace) -> Iterator[str]:
    own = {name: getattr(options, name) for names in TAKEN.values() for name in names}
    here = Path(os.path.relpath(Path.cwd(), options.output.absolute().parent))  # from the file's folder
    checked = {action.dest for action in checking_parser()._actions}
    yield HEAD
    yield from _table("[check]", settable(checking_parser(), OF_THE_REPORT), own, here)
    exported = OF_THE_REPORT.union(checked, ("model", "weights"))
    yield from _table("[export]", settable(parser_of("export"), exported), own, here)
    actions = {action.dest: action for action in settable(parser_of("export"))}
    for model in options.models:
        of_network = iter((actions["model"], actions["weights"]))
        yield from _table("[[network]]", of_network, {**own, "model": model}, here)
    yield AGAIN


def _table(heading: str, actions: Iterator[argparse.Action], given: Mapping[str, Any], here: Path) -> Iterator[str]:
    yield f"# {ABOUT[heading.strip('[]')]}"
    yield heading
    for action in actions:
        value = given.get(action.dest)
        said = " ".join((action.help or "").split())
        shown = _example(action) if value is None else _placed(action, value, here)
        yield f"{'# ' if value is None else ''}{key_of(action)} = {toml_value(shown)}  # {said}"
    yield ""


def _placed(action: argparse.Action, value: Any, here: Path) -> Any:
    if not isinstance(value, str):
        return value
    made = [str(one(action, part, here)) for part in (value.split(",") if "," in str(action.metavar) else [value])]
    return made[0] if len(made) == 1 else made


def _example(action: argparse.Action) -> Any:
    """Return a value of the right type for an option that is not set: its default, where there is one."""
    kind = toml_type(action)
    if kind is bool:
        return not action.default
    if isinstance(action.default, str | int | float | Path):
        return action.default if isinstance(action.default, int | float) else str(action.default)
    if action.choices is not None:
        return next(iter(action.choices))
    return {int: 1, float: 1.0}.get(kind, str(action.metavar))
