"""Take pictures of what a person sees: the terminal at 80 and 120 columns, a report on a screen, a phone and paper.

python docs/scripts/screens.py FOLDER [REPORT.html]
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI, TerminalTheme
from rich.text import Text
from terminal import on_terminal

REPORT = Path(__file__).parents[1] / "assets" / "report.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NETWORK = "mobilenet_v2_0.35_96"
LIGHT = TerminalTheme(
    (255, 255, 255), (30, 30, 30),
    [(0, 0, 0), (170, 20, 20), (10, 110, 30), (130, 90, 0), (0, 80, 160), (130, 30, 130), (0, 110, 120), (90, 90, 90)],
)  # fmt: skip
THEMES = {"light": LIGHT, "dark": DIMMED_MONOKAI}
DARK = "--blink-settings=preferredColorScheme=0"
FEW = "--calibration demo --calibration-images 60 --data demo --limit 200"
COMMANDS = {
    "card": f"export {NETWORK} --weights demo {FEW} --max-drop 1 --recipe minmax -q",
    "table": f"export {NETWORK} --target all --weights demo {FEW} --max-drop 1 --recipe minmax -q",
    "lists": ("recipes", "targets", "devices", "devices show cortex-a72", "models show mobilenet_v2"),
    "errors": ("exprt", "export mobilenet_v9 --calibration demo", "export net --calibratoin x", "validate no.tflite"),
    "plan": f"export {NETWORK} --weights demo {FEW} --dry-run",
}  # fmt: skip


def printed(words: str, columns: int, folder: str) -> Text:
    """Return a command with what it prints on a terminal of so many columns."""
    return Text.assemble(("$ ", "green"), f"edgecnn {words}\n", on_terminal(words, columns, folder), "\n")


def shot(page: Path, picture: Path, width: int, height: int, *options: str) -> None:
    """Take a picture of the top of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("the pictures need a browser: apt-get install chromium")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    words += [f"--window-size={width},{height}", f"--screenshot={picture}", page.resolve().as_uri()]
    subprocess.run(words, check=True, capture_output=True, timeout=300)


def terminals(folder: Path) -> None:
    """Take the pictures of the terminal."""
    with tempfile.TemporaryDirectory() as place:
        for columns in (80, 120):
            for name, lines in COMMANDS.items():
                several = (lines,) if isinstance(lines, str) else lines
                texts = [printed(words, columns, place) for words in several]
                for theme, colours in THEMES.items():
                    console = Console(record=True, width=columns, file=io.StringIO())
                    for text in texts:
                        console.print(text)
                    page = Path(place) / "page.html"
                    console.save_html(str(page), theme=colours)
                    rows = sum(len(text.wrap(console, columns)) for text in texts)
                    shot(page, folder / f"terminal-{name}-{columns}-{theme}.png", columns * 10, rows * 19 + 60)


def reports(folder: Path, report: Path) -> None:
    """Take the pictures of a report; a phone is a frame, as a window is not made that narrow."""
    shot(report, folder / "report-light.png", 1100, 3600)
    shot(report, folder / "report-dark.png", 1100, 3600, DARK)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "phone.html"
        page.write_text(
            f'<body style="margin:0"><iframe style="border:0" width=390 height=4000 src="{report.resolve().as_uri()}">'
        )
        shot(page, folder / "report-phone.png", 500, 4000, "--allow-file-access-from-files")
        shot(page, folder / "report-phone-dark.png", 500, 4000, "--allow-file-access-from-files", DARK)
    browser = str(next(filter(None, map(shutil.which, BROWSERS)), None))
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={folder / 'report-print.pdf'}"]
    subprocess.run([*words, report.resolve().as_uri()], check=True, capture_output=True, timeout=300)


def main() -> None:
    """Take all pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    reports(folder, Path(sys.argv[2]) if len(sys.argv) > 2 else REPORT)
    terminals(folder)
    print("\n".join(sorted(path.name for path in folder.iterdir())))


if __name__ == "__main__":
    main()
