"""The base of every section."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen section of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
