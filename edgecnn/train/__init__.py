"""Training: float networks of every family, and quantization-aware training of their graphs.

    config ─► network (what learns, and the file it becomes) ─► loop ─► weights or .edgecnn, checkpoint, metrics, plot

The loop knows neither families nor quantization. Everything random is drawn from ``(seed, epoch, step)`` or ``(seed,
epoch, image)``: a run that was stopped and resumed equals one that was not, bit for bit, and a run of several processes
sees the same images as a run of one.
"""

from __future__ import annotations

from edgecnn.train.config import QatConfig, TrainConfig
from edgecnn.train.loop import TrainResult, train

__all__ = ["QatConfig", "TrainConfig", "TrainResult", "train"]
