"""Put the report of the example sweep and its picture into docs/assets/. The picture needs Chromium.

mkdir FOLDER; (cd FOLDER; sh .../examples/sweep.sh)
python docs/scripts/sweep_report.py FOLDER/demo-sweep
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from assets import ASSETS, BROWSERS, picture

from edgecnn.sweeping.report import read_report


def main() -> None:
    """Write the report anew from the results in a folder, and copy it."""
    folder = Path(sys.argv[1])
    read_report(folder).write()
    page = ASSETS / "sweep.html"
    text = (folder / "report.html").read_text("utf-8").replace(f"{folder.parent.absolute()}/", "")
    page.write_text(text, encoding="utf-8")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("the picture needs a browser: apt-get install chromium")
    picture(browser, page, "sweep", 1100, 1500)
    print(page, page.stat().st_size)


if __name__ == "__main__":
    main()
