"""``edgecnn.toml``: options of commands in a file. Its keys are the parsers' options, so an option stands in one place.

``[check]`` holds what ``add_checking`` adds to several commands, ``[COMMAND]`` the options of one, ``[COMMAND.ACTION]``
those of an action, and each ``[[network]]`` those of one ``edgecnn export`` of ``edgecnn run``. What is said later in
this list wins: ``[check]``, ``[COMMAND]``, ``[[network]]``, the command line.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgecnn.cli.options import add_checking, add_memory
from edgecnn.cli.streams import write_error
from edgecnn.errors import InputError, unknown
from edgecnn.progress import Talk, talk
from edgecnn.records import read_file, read_record

FILE = Path("edgecnn.toml")
NO_FILE = "none"
COMMANDS = ("export", "validate", "compare", "benchmark", "inspect", "train", "sweep", "scale", "study")
"""Whose options a file can hold; the others print what there is, or install it."""

CHECKING = ("export", "validate", "benchmark")
"""To which of them ``[check]`` applies."""

ON_THE_LINE = frozenset(("help", "config", "dry_run", "traceback"))  # options that a file cannot hold
OF_THE_REPORT = frozenset(("json", "wide", "report", "max_memory"))  # a run has each once, so they are no network's
Values = Mapping[str, Any]  # by ``dest``: of options, as the parser would make them


@dataclass(frozen=True, kw_only=True)
class Network:
    """Hold a ``[[network]]``: options of an export, and for each ``[[network.validate]]`` those that it changes."""

    values: Values
    validate: tuple[Values, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config:
    """Hold a file's options by command, or command and action (``scale fit``), and its networks."""

    path: Path
    commands: Mapping[str, Values] = field(default_factory=lambda: MappingProxyType({}))
    networks: tuple[Network, ...] = ()


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    parser.add_argument(
        "--config", metavar="FILE|none",
        help=f"options from a file; the command line wins, --no-X takes a flag back (default {FILE}, if it is here)",
    )  # fmt: skip


def configure(parser: argparse.ArgumentParser, command: str, words: Sequence[str]) -> list[str]:
    """Make a file's options the parser's defaults; return the words without those that take a flag back.

    Args:
        parser: of the command; of one with actions, the action's takes the options.
        command: one of ``COMMANDS``.
        words: the rest of the command line.

    Raises:
        InputError: the file cannot be read, or holds what the command does not take.
    """
    if not {"-h", "--help"}.isdisjoint(words):
        return list(words)
    actions = leaves(parser, command)
    command = next((name for name in actions if name.split()[1:] == list(words[:1])), command)
    parser = actions.get(command, parser)
    kept, taken_back = _without_negations(parser, words)
    config = found(words)
    if config is None:
        return kept
    values = {k: v for k, v in config.commands.get(command, {}).items() if k not in taken_back}
    for group in parser._mutually_exclusive_groups:
        dests = {action.dest for action in group._group_actions}
        if any(_names(word, action) for word in words for action in group._group_actions):
            values = {k: v for k, v in values.items() if k not in dests}
        group.required = group.required and dests.isdisjoint(values)
    parser.set_defaults(**values)
    for action in parser._actions:
        action.required = action.required and action.dest not in values
    if values and "--config" not in words and talk() is not Talk.QUIET:
        write_error(f"note: {config.path} gives {', '.join(values)} (--config none leaves it out)")
    return kept


def _names(word: str, action: argparse.Action) -> bool:
    """Tell whether a word of the command line is an option, which may be cut short."""
    begun = word.partition("=")[0]
    return len(begun) > 2 and any(option.startswith(begun) for option in action.option_strings)


def found(words: Sequence[str]) -> Config | None:
    """Return the file that ``--config`` names, or the one in the working directory; ``None`` where there is none."""
    only = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only.add_argument("--config")
    return find(only.parse_known_args(list(words))[0].config)


def find(named: str | None) -> Config | None:
    """Return the file of that name, or the one in the working directory; ``None`` for ``none``, or without one."""
    if named == NO_FILE or (named is None and not FILE.exists()):
        return None
    return read(FILE if named is None else Path(named))


def read(path: Path) -> Config:
    """Read a file.

    Raises:
        InputError: it is no TOML, or an option is unknown or of another type; names the place.
    """
    return _config(read_file(_document(), path, remedy="`edgecnn init MODEL` writes one"), path)


def check(text: str, path: Path) -> None:
    """Check what will be written to a file; raises as ``read``."""
    _config(read_record(_document(), tomllib.loads(text), str(path)), path)


def _config(held: Any, path: Path) -> Config:
    shared = _values(held.check, checking_parser(), path, "check")
    commands = {}
    for command, parser in chosen_of(COMMANDS):
        table = held
        for part in command.split():
            table = getattr(table, part, None)
        commands[command] = (shared if command in CHECKING else {}) | _values(table, parser, path, command)
    networks = tuple(_network(row, path, k) for k, row in enumerate(held.network))
    return Config(path=path, commands=commands, networks=networks)


def _network(row: Any, path: Path, k: int) -> Network:
    rows = enumerate(row.validate)
    return Network(
        values=_values(row, parser_of("export"), path, f"network[{k}]"),
        validate=tuple(_values(r, parser_of("validate"), path, f"network[{k}].validate[{n}]") for n, r in rows),
    )


@cache
def parser_of(command: str) -> argparse.ArgumentParser:
    """Return a parser of one command alone."""
    parser = argparse.ArgumentParser(f"edgecnn {command}")
    import_module(f"edgecnn.cli.{command}").arguments(parser)
    for leaf in leaves(parser, command).values():
        add_memory(leaf)
    return parser


def leaves(parser: argparse.ArgumentParser, command: str) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of a command, or those of its actions, by command and action."""
    actions = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
    return {command: parser} if actions is None else {f"{command} {name}": p for name, p in actions.choices.items()}


def chosen_of(commands: Sequence[str]) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command or action of commands with its parser."""
    return (row for name in commands for row in leaves(parser_of(name), name).items())


@cache
def checking_parser() -> argparse.ArgumentParser:
    """Return a parser of what commands that check have in common."""
    parser = argparse.ArgumentParser()
    add_checking(parser)
    return parser


def namespace(command: str, values: Values) -> argparse.Namespace:
    """Return the options of a command: the defaults, and these values in their place."""
    defaults = {action.dest: action.default for action in parser_of(command)._actions if action.dest != "help"}
    return argparse.Namespace(**{"command": command, **defaults, **values})


def settable(parser: argparse.ArgumentParser, but: frozenset[str] = frozenset()) -> Iterator[argparse.Action]:
    """Yield the options and arguments of a parser that a file can hold."""
    return (action for action in parser._actions if action.dest not in ON_THE_LINE | but)


@cache
def _document() -> Any:
    """Return the dataclass of a file, made of the parsers."""
    export, validate = parser_of("export"), parser_of("validate")
    checked = _table("validate", settable(validate, OF_THE_REPORT | {"artifact"}))
    many = ("validate", tuple[checked, ...], field(default=()))  # type: ignore[valid-type]  # made of the parser
    network = _table("network", settable(export, OF_THE_REPORT), many)
    tables = [("check", _table("check", settable(checking_parser())))]
    tables += [(name, _table_of(name)) for name in COMMANDS]
    rows = [(name, table, field(default=None)) for name, table in tables]
    networks = ("network", tuple[network, ...], field(default=()))  # type: ignore[valid-type]
    return make_dataclass("Document", [*rows, networks], frozen=True, kw_only=True)


def _table_of(command: str) -> Any:
    """Return the dataclass of a command's table; of one with actions, of a table for each."""
    made = {name: _table(name, settable(parser)) for name, parser in leaves(parser_of(command), command).items()}
    if command in made:
        return made[command]
    rows = [(name.partition(" ")[2], table, field(default=None)) for name, table in made.items()]
    return make_dataclass(command, rows, frozen=True, kw_only=True)


def _table(name: str, actions: Iterator[argparse.Action], *more: Any) -> Any:
    rows = [(key_of(action), toml_type(action), field(default=None)) for action in actions]
    return make_dataclass(name, [*rows, *more], frozen=True, kw_only=True)


def key_of(action: argparse.Action) -> str:
    """Return an option's key: its name; of ``--no-guard`` it is ``guard``, which may be false."""
    name = next((name for name in action.option_strings if name.startswith("--")), action.dest)
    key = name.removeprefix("--").replace("-", "_")
    return key.removeprefix("no_") if action.const is False else key


def toml_type(action: argparse.Action) -> Any:
    """Return what TOML value an option takes; the parser's own type judges it after that."""
    one: Any = str
    if action.nargs == 0:
        one = bool
    elif _returns(action).startswith(("int", "tuple[int")) or action.type is int:
        one = int
    elif action.type is float:
        one = float
    return one | tuple[one, ...] if is_list(action) else one


def _returns(action: argparse.Action) -> str:
    return str(getattr(action.type, "__annotations__", {}).get("return", ""))


def is_list(action: argparse.Action) -> bool:
    """Tell whether an option takes several values: repeated, one after the other, or with commas between."""
    joined = "," in str(action.metavar) and "=" not in str(action.metavar)
    return isinstance(action, argparse._AppendAction) or action.nargs in ("+", "*") or joined


def _values(table: Any, parser: argparse.ArgumentParser, path: Path, command: str) -> dict[str, Any]:
    """Return what a table of the file gives, each as the parser would make it of the command line."""
    found: dict[str, Any] = {}
    where = command.replace(" ", ".")
    for action in settable(parser):
        value = getattr(table, key_of(action), None)
        if value is None:
            continue
        try:
            found[action.dest] = _value(action, value, path.parent)
        except (InputError, argparse.ArgumentTypeError) as error:
            raise InputError(f"{path}: {where}.{key_of(action)}: {error}") from None
    for group in parser._mutually_exclusive_groups:
        given = [key_of(action) for action in group._group_actions if action.dest in found]
        if len(given) > 1:
            raise InputError(f"{path}: {where}: {' and '.join(given)} exclude each other; give one of them")
    return found


def _value(action: argparse.Action, value: Any, folder: Path) -> Any:
    if not is_list(action):
        return one(action, value, folder)
    given = value if isinstance(value, tuple) else (value,)
    if isinstance(action, argparse._AppendAction) or action.nargs in ("+", "*"):
        return [one(action, each, folder) for each in given]
    parts = [_placed(action, part, folder) for each in given for part in str(each).split(",")]
    return action.type(",".join(parts)) if callable(action.type) else ",".join(parts)


def one(action: argparse.Action, value: Any, folder: Path) -> Any:
    """Return one value of the file as the parser would make it; a path begins at the folder."""
    if action.nargs == 0:
        return value
    if isinstance(value, str):
        value = _placed(action, value, folder)
    made = action.type(str(value)) if callable(action.type) else value
    if action.choices is not None and made not in action.choices:
        raise InputError(unknown("value", str(made), map(str, action.choices)))
    return made


def _placed(action: argparse.Action, text: str, folder: Path) -> str:
    """Return a text as it is, or as a path from the file's folder, where the option takes paths and it is one.

    What an option takes stands in its ``metavar``: ``DIR|demo|none`` is a path or one of two words, ``NAME|FILE`` a
    path where it looks like one.
    """
    forms = set(re.findall(r"[A-Za-z]+", str(action.metavar)))
    if action.type is not Path:
        if text in forms or "://" in text or forms.isdisjoint({"FILE", "DIR", "NAME", "MODEL", "ARTIFACT"}):
            return text
        looks = "/" in text or re.search(r"\.[A-Za-z]\w*$", text)
        if not forms.isdisjoint({"NAME", "MODEL"}) and not looks:
            return text
    before, equals, place = text.rpartition("=") if str(action.metavar).startswith("[MODEL=]") else ("", "", text)
    return f"{before}{equals}{place if place in forms else folder / place}"


def _without_negations(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the words without ``--no-X`` of a flag ``--X``, or ``--X`` of ``--no-X``; and the flags' names."""
    options = parser._option_string_actions
    opposite = {
        f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}": action.dest
        for name, action in options.items()
        if action.nargs == 0 and name.startswith("--") and action.dest not in ON_THE_LINE
    }
    meant = [word for word in words if word in opposite and word not in options]
    return [word for word in words if word not in meant], {opposite[word] for word in meant}
