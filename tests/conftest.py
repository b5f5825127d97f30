"""Property tests draw the same examples every time; EDGECNN_FUZZ=1 draws new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("fuzz", derandomize=False)
settings.load_profile("fuzz" if os.environ.get("EDGECNN_FUZZ") else "same")
