"""Where the settings of runs and tables are: the folder conf/ of the checkout."""

from __future__ import annotations

from pathlib import Path

from hiplora.errors import UserError

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"  # beside the package, in a checkout, since users edit it


def check_conf() -> None:
    """Refuse to continue if conf/ is missing, as it is where the package was installed without its checkout.

    Raises:
        UserError: there is no conf/.
    """
    if not CONF_DIR.is_dir():
        raise UserError(
            f"The settings of runs and tables are missing ({CONF_DIR}): an installed copy holds only the library; "
            "type `pip install -c constraints.txt -e '.[suite]'` in a checkout of the project and run it from there."
        )
