"""edgecnn: describe a CNN once, quantize it once, emit it for every runtime, and prove it on each device."""

__version__ = "0.1.0"
