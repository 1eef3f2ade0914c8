"""Export a HiP-LoRA adapter as a stock PEFT LoRA: python -m hiplora.tuner.export ADAPTER OUT [--backbone DIR]."""

from __future__ import annotations

import argparse
import sys

from hiplora.errors import exit_status


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after a UserError."""
    parser = argparse.ArgumentParser(prog="python -m hiplora.tuner.export", description=__doc__)
    parser.add_argument("adapter", metavar="ADAPTER", help="folder written by save_pretrained")
    parser.add_argument("out", metavar="OUT", help="folder for the LoRA; created if needed")
    parser.add_argument("--backbone", metavar="DIR", help="folder of the backbone, if the adapter's own is gone")
    options = parser.parse_args(arguments)

    def command() -> int:
        # Here, because the import raises UserError if the tuner cannot work with the installed PEFT.
        from hiplora.adapters.exporting import export_lora

        out = export_lora(options.adapter, options.out, backbone=options.backbone)
        print(f"{out}: a stock PEFT LoRA; load it with peft.PeftModel.from_pretrained")
        return 0

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
