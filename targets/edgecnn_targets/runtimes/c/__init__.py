"""C networks: reading the folder, and running it on this machine."""
