"""Adapter folders in and out: the only part of the project that knows what lies in one.

``files``      the names of the files, and whether they are complete; loads no torch
``reading``    any PEFT LoRA, DoRA, AdaLoRA or HiP-LoRA folder as updates, from disk or the Hub
``fields`` ``tensors``   their configuration and tensors, checked, whoever saved them
``lora`` ``hip``   the two kinds of folders behind it: PEFT's own, and ours
``trained``    what an adapter trained beside its updates: whole modules, embeddings, rows of tokens
``promised``   which modules a configuration promises and its file lacks
``writing``    updates as a folder that stock PEFT loads
``results``    folders that commands write, which never take the place of something else
``card``       the README.md of such a folder, in the Hub's form
``exporting``  a HiP-LoRA folder as a stock LoRA folder
``weights`` ``skeleton``   the checkpoint of a backbone, module by module, and what its model class says of them
"""
