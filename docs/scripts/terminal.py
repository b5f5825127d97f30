"""Draw docs/terminal.svg: the command of the README, run here and now, as the terminal shows it.

python docs/scripts/terminal.py
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

from rich.console import Console
from rich.text import Text

WORDS = (
    "export mobilenet_v2_0.35_96 --target all --weights demo --calibration demo --data demo --max-drop 1 --reduce-range"
)
COLUMNS = 100
PICTURE = Path(__file__).parents[1] / "terminal.svg"


def on_terminal(words: str, columns: int, folder: str) -> Text:
    """Return what a command of ours writes, without bars, to a terminal of so many columns."""
    screen, terminal = pty.openpty()
    ioctl(terminal, TIOCSWINSZ, pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "CI": "1", "FORCE_COLOR": "1", "COLUMNS": str(columns)}
    parts: list[bytes] = []
    with subprocess.Popen(
        [sys.executable, "-m", "edgecnn", *words.split()], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
    ):  # fmt: skip
        os.close(terminal)
        with suppress(OSError):  # the command has ended
            while part := os.read(screen, 1 << 16):
                parts.append(part)
    os.close(screen)
    return Text.from_ansi(b"".join(parts).decode().replace("\r\n", "\n").rstrip())


def main() -> None:
    """Run the command in a folder of its own and draw what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        printed = on_terminal(WORDS, COLUMNS, folder)
    width = min(max(len(line) for line in printed.plain.splitlines()), COLUMNS)
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), f"edgecnn {WORDS}"))
    console.print(printed)
    svg = console.export_svg(title="edgecnn")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)  # fetches nothing: a monospaced font that is there serves
    PICTURE.write_text("\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
