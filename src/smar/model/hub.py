"""A saved model as a whole folder: weights, tokenizer, image processor and card, here or on a model hub."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.utils.hub import cached_file

from smar.core.errors import InputError
from smar.data.voices import VOICES_FILE

CARD_FILE = "README.md"
COMPANIONS = (
    CARD_FILE,
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    VOICES_FILE,
    "gate.json",
)
"""What a processor writes beside weights and configuration, the model card, and what the gate was fitted to."""


class WholeFolder:
    """For a `PreTrainedModel`: what it saves and uploads can be used without the folder that it was loaded from."""

    name_or_path: str
    config: Any

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """As transformers does, and with the processor and the card of the folder or hub name that was loaded.

        A new model has none: `SmarProcessor.save_pretrained` writes its processor into the same folder.

        Raises:
            InputError: it shall upload, too; or the folder that the model was loaded from is gone: then the weights are
                saved alone.
        """
        if options.get("push_to_hub"):  # transformers would upload before tokenizer and card are there
            raise InputError("save_pretrained does not upload: call push_to_hub with the repository's name.")
        super().save_pretrained(save_directory, **options)  # type: ignore[misc]
        if not self.name_or_path or not options.get("is_main_process", True):
            return
        try:
            found = [
                _companion(self.name_or_path, name, getattr(self.config, "_commit_hash", None)) for name in COMPANIONS
            ]
        except OSError:
            raise InputError(
                f"{self.name_or_path}, which this model was loaded from, is gone, and with it tokenizer and card: "
                f"{save_directory} holds the weights alone. Save the processor there, too."
            ) from None
        for path in filter(None, found):
            if path.resolve() != (Path(save_directory) / path.name).resolve():
                shutil.copyfile(path, Path(save_directory) / path.name)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None, **commit: Any) -> str:
        """Upload what `save_pretrained` writes, the model card as it is; makes the repository where there is none.

        Args:
            repo_id: such as ``shop/search``.
            private: of a new repository.
            token: of the hub; the one that `hf auth login` stored, when not given.
            commit: as of `HfApi.upload_folder`: commit_message, commit_description, revision, create_pr.

        Returns:
            The commit's address.
        """
        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(api.upload_folder(repo_id=repository, folder_path=folder, **commit))


def _companion(source: str, name: str, revision: str | None) -> Path | None:
    found = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if found is None else Path(found)
