"""Make the example report and its pictures, docs/assets/, from the demo network. The pictures need Chromium.

python docs/scripts/assets.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

import edgecnn
from edgecnn.cli import main

ASSETS = Path(__file__).parents[1] / "assets"
NETWORK = "mobilenet_v2_0.35_96"
COLOURS = 160  # of a picture: text and few tints
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def run(*words: str) -> None:
    """Run a command of ours; a failed check is an example too."""
    assert main([*words, "-q"]) in (0, 1)


def picture(browser: str, page: Path, name: str, width: int, height: int, *options: str) -> None:
    """Take a picture of the top of a page."""
    path = ASSETS / f"{name}.png"
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    words += [f"--window-size={width},{height}", f"--screenshot={path}", page.as_uri()]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    with Image.open(path) as taken:
        few = taken.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def make() -> None:
    """Write the report, the network's page and their pictures."""
    ASSETS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images = ("--calibration", "demo", "--data", "demo", "--limit", "1000")
        limits = ("--max-drop", "1", "--min-agreement", "97")
        report, network = ASSETS / "report.html", folder / "network.html"
        words = ("benchmark", NETWORK, "--targets", "tflite,onnx,openvino", "--weights", "demo", "-o", f"{place}/out")
        run(*words, *images, *limits, "--report", str(report))
        text = report.read_text("utf-8").replace(f"{place}/", "").replace(str(ASSETS), "docs/assets")
        report.write_text(text, encoding="utf-8")
        run("inspect", f"{place}/out/{NETWORK}/int8/{NETWORK}.tflite", "--html", str(network), "--data", "demo")
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            raise SystemExit("the pictures need a browser: apt-get install chromium")
        picture(browser, report, "report", 1100, 1500)
        picture(browser, report, "report-dark", 1100, 1000, "--blink-settings=preferredColorScheme=0")
        picture(browser, network, "network", 620, 900)
    print(f"edgecnn {edgecnn.__version__}: {', '.join(path.name for path in sorted(ASSETS.iterdir()))}")


if __name__ == "__main__":
    make()
