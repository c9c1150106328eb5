"""What a PDF printed by Chromium says, page by page, and the size of its sheets; of its plain files alone."""

from __future__ import annotations

import re
import unicodedata
import zlib
from pathlib import Path


def read_pdf(path: Path) -> list[tuple[tuple[float, float], str]]:
    """Width and height in points, and the text without its spaces, of each page. Text that was clipped away is not in
    the file."""
    found = re.findall(rb"(?:^|\n)(\d+) 0 obj\n(.*?)\nendobj", path.read_bytes(), re.DOTALL)
    objects = {int(number): body for number, body in found}
    pages = []
    for body in objects.values():
        if not re.match(rb"<</Type /Page\s", body):
            continue
        fonts = {
            name: _letters(_stream(objects[int(re.search(rb"/ToUnicode (\d+)", objects[int(at)])[1])]))
            for name, at in re.findall(rb"/(F\d+) (\d+) 0 R", body)
        }
        box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", body)
        drawn = _stream(objects[int(re.search(rb"/Contents (\d+)", body)[1])])
        text, font = "", {}
        for name, glyphs in re.findall(rb"/(F\d+) [\d.]+ Tf|<([0-9A-F]+)> Tj", drawn):
            font = fonts[name] if name else font
            text += "".join(font.get(int(glyphs[i : i + 4], 16), "") for i in range(0, len(glyphs), 4))
        pages.append(((float(box[1]), float(box[2])), squeezed(text)))
    return pages


def squeezed(text: str) -> str:
    """``text`` without spaces, which lines that are broken have otherwise, and without ligatures."""
    return re.sub(r"[\s\u200b]", "", unicodedata.normalize("NFKC", text))


def _stream(body: bytes) -> bytes:
    return zlib.decompress(body[body.index(b"stream\n") + len(b"stream\n") :])


def _letters(table: bytes) -> dict[int, str]:
    """The text of each glyph, from a ToUnicode table."""
    letters = {}
    for block in re.findall(rb"beginbfchar(.*?)endbfchar", table, re.DOTALL):
        for glyph, text in re.findall(rb"<(\w+)> <(\w+)>", block):
            letters[int(glyph, 16)] = bytes.fromhex(text.decode()).decode("utf-16-be")
    for block in re.findall(rb"beginbfrange(.*?)endbfrange", table, re.DOTALL):
        for first, last, text in re.findall(rb"<(\w+)> <(\w+)> <(\w+)>", block):
            for k in range(int(last, 16) - int(first, 16) + 1):
                letters[int(first, 16) + k] = chr(int(text, 16) + k)
    return letters
