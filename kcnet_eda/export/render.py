"""The only Jinja environment: every emitted text comes from a template in ``jinja_templates/``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kcnet_eda.files import resource_dir
from kcnet_eda.units import format_si, spice_number


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(resource_dir("jinja_templates")),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["spice"] = spice_number  # exact enough for a simulator: 1e-12
    environment.filters["spice12"] = lambda t: f"{t:.12g}"  # instants that differ little
    environment.filters["si"] = format_si  # for people: 1 pF
    environment.filters["yaml"] = lambda value: yaml.safe_dump(_short(value), sort_keys=False, allow_unicode=True)
    environment.filters["each"] = lambda rows, line: "\n".join(line % row for row in rows)  # long lists, at C's speed
    return environment


def _short(value: Any) -> Any:
    """The same for people: six digits of a number are enough, records have them all."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _short(own) for name, own in value.items()}
    return [_short(own) for own in value] if isinstance(value, list) else value


def render(template: str, **context: Any) -> str:
    """Render a template; a name that the template uses and the context lacks is an error, never empty text."""
    return _environment().get_template(template).render(**context)
