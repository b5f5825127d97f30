"""How devices run artifacts: one module per kind of device."""
