"""Keras: whole networks in ``.keras`` and ``.h5`` files, read without TensorFlow."""

from edgecnn.graph.importers import Importer
from edgecnn_converters.keras.importer import ops, read

IMPORTER = Importer(suffixes=(".keras", ".h5", ".hdf5"), read=read, ops=ops, sized=True)
