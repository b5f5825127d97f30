"""C networks: what the folder says of itself, and running it on this machine."""
