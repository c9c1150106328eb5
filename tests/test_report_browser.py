"""The combined page in headless Chromium: widths, light and dark, unfolded, by keyboard, on paper."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path

import plotly.express as px
import pytest
from browse import LAYOUT, Page, with_page
from pdf_text import read_pdf, squeezed
from runs_of_cells import make_runs

from kcnet_eda.export.render import render
from kcnet_eda.report.figures import lines, plotly_js
from kcnet_eda.report.write import report
from kcnet_eda.study.simulate import simulate
from kcnet_eda.tools.browser import print_pdf

_OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
_UNDRAWN = "[...document.querySelectorAll('.plotly-graph-div')].filter(g => !g.querySelector('svg.main-svg')).length"
#: What scrolls sideways and cannot be reached by keyboard to do so.
_NOT_BY_KEYBOARD = """[...document.body.querySelectorAll('*')].filter(e => e.tabIndex < 0
  && e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
  .map(e => `${e.tagName} ${e.className} scrolls, and is not reached: ${e.textContent.slice(0, 40)}`)"""
#: Colours of what is drawn: of lines, markers, bars, areas; a heat map's as the list of its colours.
_COLOURS = """[...new Set([...document.querySelectorAll('.plotly-graph-div')].flatMap(g => g._fullData.flatMap(t =>
  t.type == 'heatmap' ? [t.colorscale.map(stop => stop[1]).join(' ')]
  : [t.mode?.includes('lines') && t.line.width ? t.line.color : [], t.fill && t.fill != 'none' ? t.fillcolor : [],
     t.type == 'bar' || t.mode?.includes('markers') ? t.marker.color : [],
     t.error_x?.visible ? t.error_x.color : []].flat())))].filter(c => c)"""
#: Cells of words that a narrow page makes tall thin columns of.
_TALL = """[...document.querySelectorAll('.wide td:not(.num)')].filter(e => !e.querySelector('pre, code')
  && e.offsetHeight > 8 * 24 && e.offsetWidth < 150).map(e => `${e.offsetWidth} px wide: ${e.textContent}`)"""
#: Of the page as it is printed: what is wider than the sheet's 1047 px or than its box, or has a toolbar.
_BEYOND = """[...document.querySelectorAll('table, .wide, .plotly-graph-div, .main-svg, .modebar-container')]
  .filter(e => e.getBoundingClientRect().right > 1047.5 || e.scrollWidth > e.clientWidth + 2
  || e.matches('.modebar-container') && e.getBoundingClientRect().width)
  .map(e => `${e.tagName} ${e.getAttribute('class')}: ${e.textContent.slice(0, 40)}`)"""
#: How wide each figure is, of its box.
_FILLED = """[...document.querySelectorAll('.plotly-graph-div')].map(g =>
  g.querySelector('svg.main-svg').getBoundingClientRect().width / g.getBoundingClientRect().width)"""
#: What has to stand together on a sheet: a table's row, where it is no file's text; the names of a figure's axes and
#: lines.
_TOGETHER = """[...[...document.querySelectorAll('tr')].filter(e => !e.closest('.digit') && !e.querySelector('pre'))
  .map(e => [e.textContent]), ...[...document.querySelectorAll('.plotly-graph-div')].map(g =>
  [...g.querySelectorAll('.xtitle, .ytitle, .legendtext')].map(e => e.textContent))]"""
# Okabe and Ito's eight, which readers with any of the common colour deficiencies tell apart (Color Universal Design).
_OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
_LARGEST = 15_000_000  # bytes of a page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network before and after, the second with a damaged twin; of cells the whole chain, a study over
    conditions and two of latency, the second at a single T."""
    root = tmp_path_factory.mktemp("browser")
    simulate("digits", root / "before", samples=8, simulator="engine", jobs=1)
    shutil.copytree(root / "before", root / "after")
    shutil.copytree(root / "before", root / "damaged")
    (root / "damaged" / "outputs.npz").write_bytes(b"")
    digits = [root / name for name in ("before", "after", "damaged")]
    return report([*make_runs(root).values(), *digits], root / "page.html")


def _browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("NOT RUN: no Chromium on PATH to open the report in")


def test_nothing_lies_over_another_at_any_width_and_scheme(page_file, tmp_path):
    assert page_file.stat().st_size < _LARGEST

    async def work(page: Page) -> dict[tuple[int, str], list[str]]:
        found = {}
        for width in (360, 1280, 1920):
            for scheme in ("light", "dark"):
                await page.open(page_file.as_uri(), width, scheme)
                await page.picture(tmp_path / "page.png")  # takes the scroll bar away and gives it back
                bad = list(await page.ask(LAYOUT))
                await page.ask(_OPEN_ALL)
                await page.draw()
                while await page.ask(_UNDRAWN):
                    await asyncio.sleep(0.05)
                await page.draw()
                bad += await page.ask(LAYOUT)
                bad += await page.ask(_NOT_BY_KEYBOARD)
                dark = await page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
                assert dark == (scheme == "dark")
                found[width, scheme] = bad + page.complaints()
        return found

    async def alone(page: Page) -> dict[str, list[str]]:
        found = {}
        for name in ("engine", "mos", "pvt", "latency", "one_t"):  # the runs' own pages, where there is least room
            await page.open((page_file.parent / name / "report.html").as_uri(), 360, "light")
            while await page.ask(_UNDRAWN):
                await asyncio.sleep(0.05)
            found[name] = [*(await page.ask(_TALL)), *(await page.ask(LAYOUT)), *page.complaints()]
        return found

    assert not any(asyncio.run(with_page(_browser(), tmp_path / "alone", alone)).values())
    found = asyncio.run(with_page(_browser(), tmp_path / "profile", work))
    assert {place: bad for place, bad in found.items() if bad} == {}


def test_the_printed_page_has_every_row_and_figure_whole(page_file, tmp_path):
    """Of the PDF that ``--pdf`` writes, its text; of the browser's print layout, widths."""

    async def work(page: Page) -> tuple[list[str], list[float], list[list[str]]]:
        await page.open(page_file.as_uri(), 800, "light")
        await page.call("Emulation.setEmulatedMedia", media="print")
        await page.ask("dispatchEvent(new Event('beforeprint'))")
        await page.draw()
        size = {"width": 1047, "height": 718, "deviceScaleFactor": 1, "mobile": False}
        await page.call("Emulation.setDeviceMetricsOverride", **size)
        await page.draw()
        return await page.ask(_BEYOND), await page.ask(_FILLED), await page.ask(_TOGETHER)

    beyond, filled, together = asyncio.run(with_page(_browser(), tmp_path / "profile", work))
    assert beyond == [] and len(filled) > 10 and all(share == pytest.approx(1, abs=0.01) for share in filled)
    print_pdf(page_file, tmp_path / "page.pdf")
    sheets, texts = zip(*read_pdf(tmp_path / "page.pdf"), strict=True)
    assert {(round(width), round(height)) for width, height in sheets} == {(842, 595)}  # A4, lying
    apart = [own for own in together if not any(all(squeezed(part) in text for part in own) for text in texts)]
    assert apart == [] and len(together) > 100


def test_the_library_of_the_figures_is_compiled_when_it_is_read():
    assert "? self : this, (() => {" in plotly_js()[:1000]  # as this version of it begins


def test_numbers_of_two_axes_do_not_touch_at_their_corner(tmp_path):
    """Single points and ranges that begin at a power of ten, where the browser names the corner."""
    values = ([1000.0], [100.0, 10_000.0], [3e-3, 0.2], [1.0, 2.0], [0.0, 100.0])
    parts = []
    for x in values:
        for y in values:
            for of_log in itertools.product((False, True), repeat=2):
                pair = (x, (y * 2)[: len(x)])
                parts.append(lines(f"figure{len(parts)}", {"one": pair}, ("x", "y"), of_log))
    file = tmp_path / "page.html"
    file.write_text(render("report/page.html.j2", title="corners", body="".join(parts), plotly_js=plotly_js()))

    async def work(page: Page) -> list[str]:
        await page.open(file.as_uri(), 360, "light")
        while await page.ask(_UNDRAWN):
            await asyncio.sleep(0.05)
        return [*(await page.ask(LAYOUT)), *page.complaints()]

    assert asyncio.run(with_page(_browser(), tmp_path / "profile", work)) == []


def test_every_fold_and_table_is_reached_and_opened_by_keyboard(page_file, tmp_path):
    async def work(page: Page) -> tuple[int, int, int, int]:
        await page.open(page_file.as_uri(), 1280, "light")
        wanted = await page.ask("document.querySelectorAll('summary').length")
        tables = await page.ask("[...document.querySelectorAll('.wide')].filter(e => !e.closest('details')).length")
        opened, seen = 0, set()
        for _ in range(200):
            await page.press("Tab", 9)
            what = await page.ask("document.activeElement.tagName + '.' + document.activeElement.className")
            if what == "BODY.":
                break
            if what.endswith(".wide"):
                seen.add(await page.ask("document.activeElement.getAttribute('aria-label')"))
            if what.startswith("SUMMARY"):
                await page.press("Enter", 13)
                opened += bool(await page.ask("document.activeElement.parentElement.open"))
                shown = await page.ask("getComputedStyle(document.activeElement).outlineStyle")
                assert shown == "solid"  # where the focus is, is seen
                await page.press("Enter", 13)  # shut again: what unfolds is not walked through
        return wanted, opened, tables, len(seen)

    wanted, opened, tables, seen = asyncio.run(with_page(_browser(), tmp_path / "profile", work))
    assert opened == wanted > 0 and seen == tables > 0


def test_what_is_drawn_is_told_apart_by_the_colour_blind(page_file, tmp_path):
    async def work(page: Page) -> list[str]:
        await page.open(page_file.as_uri(), 1280, "light")
        await page.ask(_OPEN_ALL)
        await page.draw()
        while await page.ask(_UNDRAWN):
            await asyncio.sleep(0.05)
        return list(await page.ask(_COLOURS))

    used = asyncio.run(with_page(_browser(), tmp_path / "profile", work))
    scales = {colours for colours in used if " " in colours and not colours.startswith("rgb")}
    assert scales == {" ".join(px.colors.sequential.Cividis)}
    # The band around a line is its colour, let through: rgba(0, 114, 178, 0.2) is #0072B2.
    plain = {_opaque(colour) for colour in set(used) - scales}
    greys = {colour for colour in plain if len({colour[1:3], colour[3:5], colour[5:]}) == 1}
    assert "#0072B2" in plain and plain - greys <= _OKABE_ITO


def _opaque(colour: str) -> str:
    """``#RRGGBB`` of that or of ``rgba(r, g, b, a)``."""
    if colour.startswith("#"):
        return colour.upper()
    return "#" + "".join(f"{int(part):02X}" for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
