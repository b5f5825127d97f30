"""Targets: runtimes that execute artifacts, and the devices they run on."""
