"""The fields of ours that the bodies of all APIs may have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from st_modules.serve.service import Choice


class Body(BaseModel):
    """A body, of which every field is known and of its type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class OwnFields(Body):
    """What none of the APIs has: the side of a search, and the instruction."""

    side: Literal["query", "document"] | None = Field(
        None, description="Which side of a search the items are on; neither by default. A field of st-modules."
    )
    instruction: str | None = Field(
        None, description="What the model is told about the task, where it reads that. A field of st-modules."
    )
    prompt_name: str | None = Field(
        None, description="Name of one of the model's own instructions, which `/v1/models` lists; or of a side."
    )

    def choose(self, **others: object) -> Choice:
        """Return how the items are embedded, with what an API says in fields of its own."""
        own = {"side": self.side, "instruction": self.instruction, "prompt_name": self.prompt_name}
        return Choice(**{**own, **others})
