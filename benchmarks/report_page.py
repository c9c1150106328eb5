"""How large a report's page is, and how soon it can be used: from navigation to its text, to all figures that are not
folded away, and to a fold opened with its figures drawn. In headless Chromium, at three widths, light and dark.

python benchmarks/report_page.py RUN... [--repeats 3]       # folders of kcnet simulate, study pvt, study latency
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browse import LAYOUT, Page, with_page

from kcnet_eda.report.write import write_report
from kcnet_eda.tools.locate import find_browser

LARGEST, LONGEST_S = 15e6, 3.0  # what a page may be and take
_UNFOLD = "[...document.querySelectorAll('details.run')].at(-1)?.setAttribute('open', '')"  # a run's own page has none
_TEXT_S = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
_UNDRAWN = "[...document.querySelectorAll('.plotly-graph-div')].filter(g => !g.querySelector('svg.main-svg')).length"


async def _drawn(page: Page) -> None:
    while await page.ask(_UNDRAWN):
        await asyncio.sleep(0.01)
    await page.ask("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


async def _measure(page: Page, url: str, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for width in (360, 1280, 1920):
        for scheme in ("light", "dark"):
            for _ in range(repeats):
                await page.open("about:blank", width, scheme)
                # While it is listened to, each error that the library makes and catches has it read again.
                await page.call("Runtime.disable")
                begun = time.monotonic()
                await page.call("Page.navigate", url=url)
                while not await page.ask("location.protocol == 'file:' && document.readyState == 'complete'"):
                    await asyncio.sleep(0.01)
                await _drawn(page)
                usable = time.monotonic() - begun
                text = await page.ask(_TEXT_S)
                begun = time.monotonic()
                await page.ask(_UNFOLD)
                await page.ask("new Promise(r => setTimeout(r))")  # the fold's own event comes first
                await _drawn(page)
                unfolded = time.monotonic() - begun
                bad = [*(await page.ask(LAYOUT)), *page.complaints()]
                times = {"text": text, "usable": usable, "unfolded": unfolded}
                rows.append({"width": width, "scheme": scheme, **times, "bad": bad})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page, record = write_report(given.runs, Path(folder) / "page.html")
        size, kinds = page.stat().st_size, [row["kind"] for row in record["runs"]] if record else ["one run"]
        work = partial(_measure, url=page.as_uri(), repeats=given.repeats)
        rows = asyncio.run(with_page(str(find_browser()), Path(folder) / "profile", work))
    print(f"{', '.join(kinds)}: {size / 1e6:.2f} MB, limit {LARGEST / 1e6:g}")
    for row in rows:
        print(f"{row['width']} px, {row['scheme']}: text after {row['text']:.2f} s, usable after ", end="")
        print(f"{row['usable']:.2f} s, ", end="")
        print(f"the last run's section {row['unfolded']:.2f} s after it was opened", *row["bad"], sep="; ")
    worst = max(row["usable"] for row in rows)  # the first load is that of a browser just started
    print(f"first {rows[0]['usable']:.2f} s, median {median(row['usable'] for row in rows):.2f} s")
    kept = size < LARGEST and worst < LONGEST_S and not any(row["bad"] for row in rows)
    print(f"worst of {len(rows)} loads: {worst:.2f} s, limit {LONGEST_S:g}: {'kept' if kept else 'MISSED'}")
    sys.exit(0 if kept else 2)


if __name__ == "__main__":
    main()
