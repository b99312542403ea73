"""The codelet generator: decoder, compute tile and epilogue, composed by one file per kind of loop nest."""
