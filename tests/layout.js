(() => {
  const bad = [], W = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > W) bad.push(`page scrolls sideways: ${document.documentElement.scrollWidth} > ${W}`);
  const scrolls = e => { for (; e; e = e.parentElement) { const o = getComputedStyle(e).overflowX; if (o == "auto" || o == "scroll") return true; } return false; };
  for (const e of document.querySelectorAll("h1,h2,p,.tile,table,figure,summary,.plotly-graph-div")) {
    const r = e.getBoundingClientRect();
    if (r.width && r.right > W + 1 && !scrolls(e)) bad.push(`${e.tagName} ${e.className} beyond the page: ${e.textContent.slice(0, 40)}`);
    if (r.width && e.matches(".tile") && e.scrollWidth > e.clientWidth + 1) bad.push(`tile cuts: ${e.textContent.slice(0, 40)}`);
  }
  for (const g of document.querySelectorAll(".plotly-graph-div")) {
    const box = g.getBoundingClientRect();
    if (!box.width) continue;
    const texts = [...g.querySelectorAll("text")].filter(t => t.textContent.trim() && t.getBoundingClientRect().width && getComputedStyle(t).visibility != "hidden");
    const rects = texts.map(t => t.getBoundingClientRect());
    texts.forEach((t, i) => {
      const r = rects[i];
      if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1) bad.push(`${g.id}: "${t.textContent}" is cut`);
      for (let j = i + 1; j < texts.length; j++) {
        const s = rects[j], x = Math.min(r.right, s.right) - Math.max(r.left, s.left), y = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
        if (x > 2 && y > 3) bad.push(`${g.id}: "${t.textContent}" on "${texts[j].textContent}"`);
      }
    });
  }
  return bad;
})()
