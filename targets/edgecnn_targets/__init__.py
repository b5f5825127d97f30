"""Targets: runtimes that execute artifacts, the devices they run on, and the checks made of them."""
