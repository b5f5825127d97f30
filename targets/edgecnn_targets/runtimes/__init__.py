"""Execute artifacts: one module per runtime."""
