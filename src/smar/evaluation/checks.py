"""What `smar evaluate` refuses before it encodes anything: models that do not load or fit, and a closed folder."""

from collections.abc import Sequence
from pathlib import Path

from smar.core.errors import InputError
from smar.core.files import make_writable
from smar.data.dataset import Dataset
from smar.evaluation.facts import NamedRun
from smar.model.run_folder import baselines, load_encoder


def check_models(runs: Sequence[NamedRun], dataset: Dataset) -> None:
    """Raise InputError where a model of a run is missing or damaged, or reads item columns that the dataset lacks."""
    for run in runs:
        for baseline in (*baselines(run.path), None):
            wanted = load_encoder(run.path, baseline).config.text_fields
            if missing := [name for name in wanted if name not in dataset.items.column_names]:
                raise InputError(
                    f"{run.path} reads the item columns {', '.join(wanted)}; {dataset.path} lacks {', '.join(missing)}."
                )


def check_writable(out: Path) -> None:
    """Make the folder `out`; raise InputError where it cannot be made, or nothing can be written into it."""
    try:
        make_writable(out)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error}. Name another folder.") from None
