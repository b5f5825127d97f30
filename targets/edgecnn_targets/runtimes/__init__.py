"""What executes artifacts: one module per runtime."""
