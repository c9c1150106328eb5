"""Settings files: YAML, checked whole, every problem reported with its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from kcnet_eda.errors import InvalidInputError


class Settings(BaseModel):
    """Base of every settings section: immutable, and an unknown key is an error, not a silent wish."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)
_LARGEST_YAML, _DEEPEST_YAML = 64 * 1024, 32


def load_settings(path: Path, kind: type[S]) -> S:
    """Read a YAML file into ``kind``.

    Raises
    ------
    InvalidInputError
        The file is missing, is not YAML, or breaks the schema; all breaks are listed with their key.
    """
    return check_settings(read_yaml(path), kind, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Anchors and aliases are refused: a few lines of them can stand for billions.

    Raises
    ------
    InvalidInputError
        The file is missing, over 64 KiB, not YAML, not a mapping, nested beyond reason, or uses anchors.
    """
    where = str(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
        raise InvalidInputError(where, ["is not a regular file"])
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST_YAML + 1)
        if len(raw) > _LARGEST_YAML:
            raise InvalidInputError(where, [f"is larger than {_LARGEST_YAML // 1024} KiB, too large for settings"])
        text = raw.decode("utf-8")
        _refuse_costly(text, where)
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise InvalidInputError(where, ["no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(where, [f"cannot be read: {error}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInputError(where, [f"is not YAML: {error}"]) from None
    if not isinstance(content, dict):
        raise InvalidInputError(where, ["must hold 'key: value' lines at its top level"])
    return content


def _refuse_costly(text: str, where: str) -> None:
    """Look at YAML event by event, which stops early, for what would cost time or memory to build."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if getattr(event, "anchor", None) is not None:
            raise InvalidInputError(where, ["uses YAML anchors or aliases (& and *)"], "Write the values out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST_YAML:
            raise InvalidInputError(where, [f"nests its values more than {_DEEPEST_YAML} deep"])


def check_settings(content: dict[str, Any], kind: type[S], where: str) -> S:
    """``content`` as a ``kind``; raises :class:`InvalidInputError` with all breaks of the schema, each with its key,
    and with what the schema says of that key."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']) or '(top)'}: {e['msg'].removeprefix('Value error, ')}"
            f"{_found(e['type'], e['input'])}{_meaning(kind, e['loc'], e['type'])}"
            for e in _own(error.errors())
        ]
        raise InvalidInputError(where, problems) from None


def _own(errors: Sequence[Any]) -> Iterator[Any]:
    """Those that are no consequence of another: a list is too short where an entry of it could not be used."""
    for error in errors:
        place = error["loc"]
        below = any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in errors)
        if error["type"] != "too_short" or not below:
            yield error


def _found(error: str, value: object) -> str:
    """What was there, in words; nothing where a key is missing, since the value is then all that stands beside it."""
    return "" if error == "missing" else f" (found {value!r:.60})"


def _meaning(kind: type[BaseModel], place: tuple[int | str, ...], error: str) -> str:
    """What the schema says of the key at ``place``, or for a key it does not know, which keys there are."""
    at: Any = kind
    said = ""
    for part in place:
        if isinstance(at, type) and issubclass(at, BaseModel):
            found = {field.alias or name: field for name, field in at.model_fields.items()}.get(str(part))
            if found is None:
                continue  # the key or the number of an entry, or a key that is not known
            said = found.description or ""
            at = _section(found.annotation)
    if error == "extra_forbidden":
        fields = at.model_fields if isinstance(at, type) and issubclass(at, BaseModel) else {}
        known = [field.alias or name for name, field in fields.items() if field.description]
        return f"; known here: {', '.join(known)}" if known else ""
    return f"; it is: {said}" if said else ""


def _section(annotation: Any) -> Any:
    """The settings section in an annotation such as ``Section | None`` or ``tuple[Section, ...]``, else as it is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _section(a)) is not None), None)
