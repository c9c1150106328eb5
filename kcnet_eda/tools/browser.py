"""Pages printed to PDF by a headless browser, where one is installed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kcnet_eda.errors import ToolFailedError
from kcnet_eda.tools.locate import find_browser
from kcnet_eda.tools.process import run

_TIMEOUT_S = 120.0
_DRAWING_MS = 10_000  # of the page's own clock, for its figures to be drawn


def print_pdf(page: Path, pdf: Path) -> None:
    """Print the HTML file ``page`` to ``pdf``.

    Raises
    ------
    ToolMissingError
        No browser is installed.
    ToolFailedError, RunTimeoutError
        It wrote no PDF; the message names its log.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="kcnet-print-") as scratch:
        folder = Path(scratch)
        printed = folder / "page.pdf"
        command: list[str | Path] = [
            *(browser, "--headless", "--disable-gpu", "--no-sandbox", "--no-first-run", f"--user-data-dir={folder}"),
            *("--no-pdf-header-footer", f"--virtual-time-budget={_DRAWING_MS}", f"--print-to-pdf={printed}"),
            page.resolve().as_uri(),
        ]
        done = run(command, cwd=folder, log=folder / "log.txt", timeout_s=_TIMEOUT_S)
        data = printed.read_bytes() if printed.is_file() else b""
    # The exit code is no verdict.
    if not data.startswith(b"%PDF-") or b"%%EOF" not in data[-1024:]:
        said = done.output.strip().splitlines()
        raise ToolFailedError(f"{browser.name} wrote no whole PDF of {page}: {said[-1] if said else 'it said nothing'}")
    pdf.write_bytes(data)
