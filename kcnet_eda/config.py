"""Settings files: YAML, checked whole, every problem reported with its place."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from kcnet_eda.errors import InvalidInputError


class Settings(BaseModel):
    """Base of every settings section: immutable, and an unknown key is an error, not a silent wish."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def load_settings(path: Path, kind: type[S]) -> S:
    """Read a YAML file into ``kind``.

    Raises
    ------
    InvalidInputError
        The file is missing, is not YAML, or breaks the schema; all breaks are listed with their key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInputError(str(path), ["no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(str(path), [f"cannot be read: {error}"]) from None
    except yaml.YAMLError as error:
        raise InvalidInputError(str(path), [f"is not YAML: {error}"]) from None
    if not isinstance(content, dict):
        raise InvalidInputError(str(path), ["must hold 'key: value' lines at its top level"])
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']) or '(top)'}: {e['msg']} (found {e['input']!r:.60})"
            for e in error.errors()
        ]
        raise InvalidInputError(str(path), problems) from None
