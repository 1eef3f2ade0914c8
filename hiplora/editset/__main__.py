"""Overwrite the shipped edit set with what follows from its tables: ``python -m hiplora.editset``."""

from __future__ import annotations

import argparse
import json

from hiplora.editset import PATH
from hiplora.editset.generate import generated


def main() -> None:
    """Overwrite the shipped file, and print how many items it holds."""
    words = "Overwrite the shipped edit set with the items that its tables give."
    argparse.ArgumentParser(prog="python -m hiplora.editset", description=words).parse_args()
    rows = generated()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    PATH.write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(rows)} items written to {PATH}")


if __name__ == "__main__":
    main()
