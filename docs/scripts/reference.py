"""Write docs/reference/cli.md and docs/reference/recipe.md from the parser and the recipes themselves.

python docs/scripts/reference.py
"""

from __future__ import annotations

import argparse
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

from edgecnn.cli import _parser, main

FOLDER = Path(__file__).parents[1] / "reference"
MADE = "<!-- made by docs/scripts/reference.py; edit the help texts in edgecnn/cli instead -->"


def cli() -> str:
    """Return the page of the command line: every command, argument, option and limit with its help."""
    parser, _ = _parser()
    pages = [
        f"# Command line\n\n{MADE}\n\n{_sentence(parser.description)} `edgecnn COMMAND --help` prints the same."
        " [Export and check](../export.md#exit-status) has the exit statuses."
    ]
    return "\n".join([*pages, *_commands(parser, "")]) + "\n"


def _commands(parser: argparse.ArgumentParser, prefix: str) -> list[str]:
    lines: list[str] = []
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for name, command in action.choices.items():
            words = f"{prefix}{name}"
            lines += ["", f"{'###' if prefix else '##'} {words}", "", _sentence(command.description), ""]
            lines += [f"```text\n{_usage(command)}\n```"]
            lines += _options(command)
            lines += _commands(command, f"{words} ")
    return lines


def _usage(command: argparse.ArgumentParser) -> str:
    given = [a for a in command._actions if not a.option_strings]
    needed = [a for a in command._actions if a.option_strings and a.required]
    words = [*(_form(a) for a in given), *(f"{a.option_strings[0]} {_value(a)}" for a in needed)]
    return " ".join([command.prog, *words, "[OPTIONS]"])


def _options(command: argparse.ArgumentParser) -> list[str]:
    lines: list[str] = []
    for group in command._action_groups:
        actions = [a for a in group._group_actions if a.dest != "help"]
        actions = [a for a in actions if not isinstance(a, argparse._SubParsersAction)]
        if not actions:
            continue
        title = {"positional arguments": "argument", "options": "option"}.get(group.title or "", group.title)
        lines += ["", f"| {title} | meaning |", "|---|---|"]
        lines += [f"| {_code(a)} | {_help(command, a)} |" for a in actions]
    return lines


def _code(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_form(action)}`".replace("|", "\\|")
    value = _value(action)
    names = (f"`{name} {value}`" if value else f"`{name}`" for name in action.option_strings)
    return ", ".join(names).replace("|", "\\|")


def _form(action: argparse.Action) -> str:
    value = _value(action)
    return {"?": f"[{value}]", "*": f"[{value} …]", "+": f"{value} …"}.get(str(action.nargs), value)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices is not None else action.dest.upper()


def _help(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    says = command._get_formatter()._expand_help(action) if action.help else ""
    return " ".join(says.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _sentence(text: str | None) -> str:
    words = " ".join((text or "").split())
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def recipe_page() -> str:
    """Return the page of the recipes: the form of a file, and each recipe that ships as such a file."""
    lines = [
        "# Recipes",
        "",
        MADE.replace("help texts in edgecnn/cli", "recipes in edgecnn/quant"),
        "",
        "A recipe is a TOML file. Print one, edit it, and give the file to `--recipe`:",
        "",
        "```sh",
        "edgecnn recipes show fast > mine.toml",
        "edgecnn export mobilenet_v2_0.35_96 --target tflite --weights demo --calibration demo "
        "--calibration-images 60 --recipe mine.toml",
        "```",
        "",
        "A setting that does not exist is an error that names the nearest one. The manifest of an artifact holds the",
        "whole recipe. [Quantization](../quantization.md) explains the steps.",
    ]
    for found in json.loads(_printed("recipes", "--json"))["entries"]:
        shown = _printed("recipes", "show", found["name"]).strip()
        lines += ["", f"## {found['name']}", "", f"```toml\n{shown}\n```"]
    return "\n".join(lines) + "\n"


def _printed(*words: str) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        main(words)
    return printed.getvalue()


PAGES = {"cli.md": cli, "recipe.md": recipe_page}


def write() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
