"""Reads and writes adapter folders: no other package depends on their content.

``files``      names of the files, and whether a folder is complete; loads no torch
``reading``    any PEFT LoRA, DoRA, AdaLoRA or HiP-LoRA folder as updates, from disk or the Hub
``fields`` ``tensors``   checked configuration and tensors of a folder, from any library
``lora`` ``hip``   updates from PEFT's folders, and from HiP-LoRA's
``trained``    other trained tensors of an adapter: whole modules, embeddings, rows of tokens
``promised``   modules that a configuration names and its file lacks
``writing``    updates as a folder that stock PEFT loads
``results``    output folders of commands, which never replace anything else
``card``       the README.md of such a folder, in the Hub's form
``exporting``  a HiP-LoRA folder as a stock LoRA folder
``weights`` ``skeleton``   the checkpoint of a backbone, read module by module, and its modules without weights
"""
