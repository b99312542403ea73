"""What compiled models must compute: the meaning of every operation, type and encoding, in numpy.

`qcc.py` operations, one function each; `float_ops.py` float functions to the last bit; `formats.py` and `minifloat.py` element types;
`storage.py` and `codecs.py` what encodings store; `interpreter.py` runs modules of the graph and integer forms with them.
"""
