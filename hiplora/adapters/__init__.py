"""Adapter folders in and out: the only part of the project that knows what lies in one.

``files``      the names of the files, and whether they are complete; loads no torch
``reading``    any PEFT LoRA, DoRA, AdaLoRA or HiP-LoRA folder as updates, from disk or the Hub
``lora`` ``hip``   the two kinds of folders behind it: PEFT's own, and ours
``writing``    updates as a folder that stock PEFT loads
``results``    folders that commands write, which never take the place of something else
``exporting``  a HiP-LoRA folder as a stock LoRA folder
``weights``    the checkpoint of a backbone, module by module, which some updates depend on
"""
