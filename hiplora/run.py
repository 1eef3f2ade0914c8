"""Make one run and its records: ``python -m hiplora.run method=hip task=gsm8k seed=42``.

With ``-m`` the same command sweeps over comma-separated values; a job that fails does not stop the others.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports that need the suite
    from hiplora.suite import check_installed

    check_installed()

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode

from hiplora import sweep
from hiplora.command_line import quoted_options
from hiplora.compose import typed
from hiplora.conf_dir import CONF_DIR, check_conf
from hiplora.disk import Busy
from hiplora.environment import single_process
from hiplora.errors import UserError
from hiplora.hydra_compose import one_sentence
from hiplora.report.cards import fill_cards
from hiplora.report.terminal import describe, tally
from hiplora.stages.make import Engine
from hiplora.stages.store import Store
from hiplora.tracking import Tracking

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hiplora.pipelines.base import Config


def answer(config: Config, *, wait: bool = True) -> str:
    """Make the stages that a configuration asks for; returns the text to print.

    Raises:
        UserError: the configuration or the machine does not allow the run; nothing complete is lost.
        Busy: other processes are making all that is left, and ``wait`` is False.
    """
    single_process()  # also here, since a launcher may have started this job in its own process
    tracking = Tracking(enabled=config.logging == "wandb", folder=config.places.outputs)
    tracking.check()
    engine = Engine(Store(config.places), tracking, force=config.force, wait=wait)
    outcomes = engine.run(config.stages())
    fill_cards(outcomes, engine.store)
    text = tally(engine) if config.pipeline.many else describe(outcomes, engine, retain=config.retain)
    return "\n".join(filter(None, [text, config.conclude(outcomes)]))


@hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")
def _hydra_main(config: DictConfig) -> None:
    # Here and not in main(): some launchers run this function alone, in other processes.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # caused by its own modules
    words = HydraConfig.get().overrides.task
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        _job(config, words, Path(HydraConfig.get().runtime.output_dir), wait=not sweep.in_turn())
        return
    try:
        print(answer(typed(config, words)))
    except UserError as error:
        sys.exit(_refusal(error))


def _job(config: DictConfig, words: Sequence[str], folder: Path, *, wait: bool) -> None:
    """Run one job of a sweep and write its outcome into its own folder, where the summary finds it.

    Without ``wait`` a job that other processes are making is put off until the other jobs are done.
    """
    failed = None
    sweep.forget(folder)
    try:
        print(answer(typed(config, words), wait=wait))
    except Busy as error:
        print(f"Another process is making {error}; this job is done after the others.", file=sys.stderr, flush=True)
        sweep.put_off(lambda: _job(config, words, folder, wait=True))
        return
    except UserError as error:
        failed = str(error)
        print(f"error: {failed}", file=sys.stderr)
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    try:
        sweep.write_status(folder, failed=failed)
    except UserError as error:  # a full disk must not end the sweep; the summary reports the missing status
        print(f"error: {error}", file=sys.stderr)


def _refusal(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _checked_main(everything: bool) -> None:
    single_process()
    check_conf()
    flags = [word for word in sys.argv[1:] if word in ("-m", "--multirun")]  # Hydra wants it before the overrides
    sys.argv[1:] = [*flags[:1], *quoted_options([word for word in sys.argv[1:] if word not in flags])]
    try:
        _hydra_main()
    except (UserError, HydraException):
        raise
    except Exception as error:
        if everything or sweep.SweepSummary.running is None:
            raise
        print(sweep.broken_launcher(error))  # jobs catch their own errors, so this one is the launcher's
        sys.exit(1)


def main() -> None:
    """Entry point of ``python -m hiplora.run`` and of the command ``hiplora``."""
    everything = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    try:
        _checked_main(everything)
    except UserError as error:
        sys.exit(_refusal(error))
    except HydraException as error:
        if everything:
            raise
        sys.exit(_refusal(sweep.located(one_sentence(error))))
    except KeyboardInterrupt as error:
        print(sweep.interruption(error), file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
