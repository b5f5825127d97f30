"""Artifacts beside fp32, beside the oracle and beside each other, on devices, against limits."""
