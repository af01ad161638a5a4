"""What every section of the recipe is made of: the base of them all, and the numbers that a key can
hold.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1, strict=True)]  # strict: `true` is no 1
NotNegativeCount = Annotated[int, Field(ge=0, strict=True)]


class Section(BaseModel):
    """A part of the recipe: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )
