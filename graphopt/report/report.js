"use strict";
/* A page is complete without this. It sorts tables, shows the value under the pointer, and marks a layer wherever it is
   named. What stands in the page is only ever read as text. No ampersand and no opening angle: the page is XML as well. */
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const make = (tag, attributes, ...inside) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };
  const near = (event, selector) => event.target instanceof Element ? event.target.closest(selector) : null;

  /* tables: numbers by size, the rest by letters, empty cells last */
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const found = /^[≈∞]|^[+\-−]?[\d,]*\.?\d+(e[+\-]?\d+)?/i.exec(text);
    if (!found) return [text ? 1 : 2, 0, text];
    if (found[0] === "≈") return [0, 0, text];
    return [0, found[0] === "∞" ? Infinity : Number(found[0].replaceAll(",", "").replace("−", "-")), text];
  };
  const compare = (a, b, sign) =>
    a[0] - b[0] || (a[0] === 0 ? sign * Math.sign(a[1] - b[1]) || 0 : sign * a[2].localeCompare(b[2], "en", { numeric: true }));
  const sort = (table, head) => {
    const before = head.getAttribute("aria-sort"), number = head.classList.contains("number");
    const down = before ? before === "ascending" : number;
    const rows = all("tbody tr", table).map(row => [value(row, head.cellIndex), row]);
    rows.sort((a, b) => compare(a[0], b[0], down ? -1 : 1));
    all("th", table).forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  for (const table of all("table")) {
    if (3 > table.rows.length) continue;
    for (const head of all("th", table)) {
      if (!head.textContent) continue;
      const button = make("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => sort(table, head));
      head.append(button);
    }
  }

  /* pictures: what browsers show after a second is shown at once */
  const tip = make("div", { id: "tip", role: "status", hidden: "" });
  document.body.append(tip);
  for (const title of all("svg title")) {
    title.parentNode.dataset.told = title.textContent;
    title.parentNode.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  document.addEventListener("pointermove", event => {
    const over = near(event, "[data-told]");
    tip.hidden = !over;
    if (!over) return;
    tip.textContent = over.dataset.told;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 10)}px`;
  });

  /* layers: one click marks a name everywhere, and unfolds where it is */
  const places = new Map();
  for (const name of all(".path")) places.set(name.textContent, [...(places.get(name.textContent) || []), name]);
  const mark = chosen => {
    const on = chosen.getAttribute("aria-pressed") !== "true", top = chosen.getBoundingClientRect().top;
    for (const [text, names] of places)
      for (const name of names) {
        const marked = on ? text === chosen.textContent : false;
        name.setAttribute("aria-pressed", marked);
        const row = name.closest("tr");
        if (row) row.classList.toggle("marked", marked);
        const folded = name.closest("details");
        if (marked) if (folded) folded.open = true;
      }
    scrollBy(0, chosen.getBoundingClientRect().top - top);
  };
  for (const [, names] of places)
    for (const name of names) {
      for (const [key, to] of [["role", "button"], ["tabindex", "0"], ["aria-pressed", "false"]]) name.setAttribute(key, to);
      name.dataset.places = names.length;
    }
  document.addEventListener("click", event => {
    const name = near(event, ".path");
    if (name) mark(name);
  });
  document.addEventListener("keydown", event => {
    const name = near(event, ".path");
    if (!name || !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    mark(name);
  });
})();
