"""The combined page in headless Chromium: widths, light and dark, unfolded, by keyboard."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import plotly.express as px
import pytest
from browse import LAYOUT, Page, with_page
from runs_of_cells import make_runs

from kcnet_eda.report.write import report
from kcnet_eda.study.simulate import simulate

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
# Okabe and Ito's eight, which readers with any of the common colour deficiencies tell apart (Color Universal Design).
_OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
_LARGEST = 15_000_000  # bytes of a page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network before and after, the second with a damaged twin; of cells the whole chain, a study over
    conditions and one of latency."""
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
        for name in ("engine", "mos", "pvt", "latency"):  # the runs' own pages, where there is least room
            await page.open((page_file.parent / name / "report.html").as_uri(), 360, "light")
            found[name] = [*(await page.ask(LAYOUT)), *page.complaints()]
        return found

    assert not any(asyncio.run(with_page(_browser(), tmp_path / "alone", alone)).values())
    found = asyncio.run(with_page(_browser(), tmp_path / "profile", work))
    assert {place: bad for place, bad in found.items() if bad} == {}


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
