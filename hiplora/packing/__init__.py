"""Several sequences in one row, what they share computed once: for training and for evaluation.

``sequences`` says what is read and predicted, ``rows`` puts sequences into rows, ``batches`` makes tensors of rows,
``attention`` computes what each token sees, ``masks`` gives it to layers with windows, ``decoder`` runs a model up to
its hidden states, ``agreement`` says whether a model can be asked so. A token's position tells where it stands: it
continues the nearest token before it in its row whose position is one less.
"""
