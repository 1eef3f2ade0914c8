"""Packs several sequences into one row and computes shared prefixes once, for training and for evaluation.

``sequences`` defines what is read and predicted, ``rows`` packs sequences into rows, ``batches`` turns rows into
tensors, ``attention`` is block attention over rows, ``masks`` builds masks for layers with windows, ``decoder`` runs a
model up to its hidden states, ``agreement`` tests whether a model computes packed rows correctly. Position ids encode
the structure of a row: a token continues the nearest token before it whose position is one less.
"""
