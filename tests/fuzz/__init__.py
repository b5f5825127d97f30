"""Mutated files of every kind for every reader: a campaign of a given length and seed.

    python -m fuzz --count 20000 --seed 0

``seeds`` makes sound files, ``mutate`` damages them, ``readers`` reads one, ``campaign`` runs many in worker processes.
"""
