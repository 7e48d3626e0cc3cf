"""What an emitted model says, in its metadata, of how it was made. Nothing proves that it is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

__all__ = ["KEYS", "Provenance"]


@dataclass(frozen=True)
class Provenance:
    """Each is empty where nothing is said of it."""

    version: str = ""
    """Of graphopt."""
    source_sha256: str = ""
    """Of the model that it was made from, external data included."""
    recipe: str = ""
    """Its text."""
    verdict: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Provenance:
        """What the metadata of a model says."""
        return cls(*(metadata.get(key, "") for key in KEYS))

    @property
    def metadata(self) -> dict[str, str]:
        """What is said, as the metadata of a model."""
        return {key: text for key, text in zip(KEYS, asdict(self).values(), strict=True) if text}


KEYS = tuple(f"graphopt.{field.name}" for field in fields(Provenance))
"""Of metadata that is graphopt's."""
