"""Post-training quantization: recipes of steps, and quantization-aware modules."""

DEFAULT = "fast"  # the recipe of those who name none
