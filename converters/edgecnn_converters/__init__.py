"""Converters: a graph in, the bytes of one file format out. One room per format."""
