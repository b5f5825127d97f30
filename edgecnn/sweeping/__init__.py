"""Sweeps: many combinations of networks, recipes, precisions, formats and devices, every stage of them once.

spec (the file) ─► plan (axes ─► rows ─► stages) ─► samplers ─► run (stages ─► jobs) ─► store (one file per result)
store ─► report ─► pages
"""
