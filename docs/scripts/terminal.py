"""Draw docs/terminal.svg: the command of the README, run here and now, as the terminal shows it.

python docs/scripts/terminal.py
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WORDS = (
    "export mobilenet_v2_0.35_96 --target all --weights demo --calibration demo --data demo --max-drop 1 --reduce-range"
)
COLUMNS = "100"
PICTURE = Path(__file__).parents[1] / "terminal.svg"


def main() -> None:
    """Run the command in a folder of its own and draw what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "edgecnn", *WORDS.split()],
            cwd=folder, env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": COLUMNS}, text=True, check=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    printed = Text.from_ansi(done.stdout.rstrip())
    width = min(max(len(line) for line in printed.plain.splitlines()), int(COLUMNS))
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), f"edgecnn {WORDS}"))
    console.print(printed)
    svg = console.export_svg(title="edgecnn")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)  # fetches nothing: a monospaced font that is there serves
    PICTURE.write_text("\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
