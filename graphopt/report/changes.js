"use strict";
// Two graphs with one camera: the rows of both are the same, each pane is moved sideways on its own.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLUMN = 200, ROW = 66, WIDE = 180, HIGH = 40, FAR = 0.3, BLOCK = 16, LISTED = 60;
  const [KEY, OP, KIND, X, AT, OTHERS, NOTES, SETTINGS, INPUTS, OUTPUTS] = Array(10).keys();
  const told = document.getElementById("told"), lists = document.getElementById("lists");
  const search = document.getElementById("search"), found = document.getElementById("found");
  const camera = { k: 1, y: 0, x: [0, 0] };
  let chosen = null, hits = [], hit = -1, waiting = false;

  const svg = (tag, attributes, text) => make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, text);
  const html = (tag, attributes, ...inside) => make(document.createElement(tag), attributes, ...inside);
  function make(element, attributes = {}, ...inside) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...inside.filter(i => i !== undefined && i !== null));
    return element;
  }
  const across = x => (x + 0.5) * COLUMN, down = row => (row + 0.5) * ROW;
  const cut = (text, most) => (text.length <= most ? text : "…" + text.slice(1 - most));  // names differ at their ends

  class Pane {
    constructor(index, id) {
      const side = data.sides[index];
      Object.assign(this, side, { index, root: document.getElementById(id), live: new Map() });
      this.scene = svg("g");
      this.layers = ["far", "lines", "boxes", "marks"].map(name => this.scene.appendChild(svg("g", { class: name })));
      this.root.append(this.scene);
      this.rows = group(this.nodes.keys(), i => [this.nodes[i][AT]]);
      this.reads = this.nodes.map(() => []);
      this.readers = this.nodes.map(() => []);
      this.edges.forEach(([from, to], i) => { this.reads[to].push(i); this.readers[from].push(i); });
      this.blocks = group(this.edges.keys(), i => {
        const [from, to] = this.edges[i], first = Math.floor(this.nodes[from][AT] / BLOCK);
        return Array.from({ length: Math.floor(this.nodes[to][AT] / BLOCK) - first + 1 }, (_, b) => first + b);
      });
    }
    place(i) { return [across(this.nodes[i][X]), down(this.nodes[i][AT])]; }
    line(i) {
      const [from, to, way] = this.edges[i], [x, y] = this.place(from), [u, v] = this.place(to);
      let path = `M${x} ${y + HIGH / 2}`, last = [x, y + HIGH / 2];
      for (const [px, row] of [...way, [u / COLUMN - 0.5, null]]) {
        const [nx, ny] = [across(px), row === null ? v - HIGH / 2 : down(row)], middle = (last[1] + ny) / 2;
        path += nx === last[0] ? `V${ny}` : `C${last[0]} ${middle} ${nx} ${middle} ${nx} ${ny}`;
        last = [nx, ny];
      }
      return path;
    }
    box(i) {
      const node = this.nodes[i], [x, y] = this.place(i), g = svg("g", { class: `node ${node[KIND]}`, transform: `translate(${x - WIDE / 2} ${y - HIGH / 2})` });
      const sign = data.signs[node[KIND]], op = node[OP].split(".").pop();  // the domain is told aside
      g.append(
        svg("rect", { width: WIDE, height: HIGH, rx: 6 }), svg("path", { class: "stripe", d: `M6 0H5a5 5 0 0 0-5 5V${HIGH - 5}a5 5 0 0 0 5 5H6z` }),
        svg("text", { x: 14, y: 17, class: "op" }, op.length > 18 ? op.slice(0, 17) + "…" : op), svg("text", { x: 14, y: 32 }, cut(node[KEY], 25)),
        svg("text", { x: WIDE - 8, y: 17, class: "sign" }, sign), svg("title", {}, `${node[KEY]}: ${node[KIND]}`));
      g.dataset.i = i;
      return g;
    }
    overview() {  // all of it, in one path for each kind
      if (this.layers[0].childNodes.length) return;
      this.layers[0].append(svg("path", { class: "edge", d: this.edges.map((_, i) => this.line(i)).join("") }));
      for (const [kind, nodes] of group(this.nodes.keys(), i => [this.nodes[i][KIND]])) {
        const d = nodes.map(i => { const [x, y] = this.place(i); return `M${x - WIDE / 2} ${y - HIGH / 2}h${WIDE}v${HIGH}h${-WIDE}z`; });
        this.layers[0].append(svg("path", { class: `mass ${kind}`, d: d.join("") }));
      }
    }
    draw() {
      const far = camera.k < FAR, { width, height } = this.size, wanted = new Set();
      this.scene.setAttribute("transform", `translate(${camera.x[this.index]} ${camera.y}) scale(${camera.k})`);
      this.layers[0].setAttribute("visibility", far ? "visible" : "hidden");
      if (far) this.overview();
      else {
        const first = Math.floor(-camera.y / camera.k / ROW) - 1, last = Math.ceil((height - camera.y) / camera.k / ROW) + 1;
        const [left, right] = [0, width].map(x => (x - camera.x[this.index]) / camera.k / COLUMN - 0.5);
        for (let row = first; row <= last; row++)
          for (const i of this.rows.get(row) || []) if (this.nodes[i][X] > left - 1 && this.nodes[i][X] < right + 1) wanted.add(i);
        for (let b = Math.floor(first / BLOCK); b <= last / BLOCK; b++)
          for (const i of this.blocks.get(b) || [])
            if (this.nodes[this.edges[i][1]][AT] >= first && this.nodes[this.edges[i][0]][AT] <= last) wanted.add(-1 - i);
      }
      for (const [i, element] of this.live) if (!wanted.has(i)) { element.remove(); this.live.delete(i); }
      for (const i of wanted) if (!this.live.has(i)) {
        const element = i < 0 ? svg("path", { class: "edge", d: this.line(-1 - i) }) : this.box(i);
        this.layers[i < 0 ? 1 : 2].append(element);
        this.live.set(i, element);
      }
    }
    mark(nodes, main) {
      this.layers[3].replaceChildren();
      for (const i of nodes) {
        const [x, y] = this.place(i), look = main ? "on" : "kin";
        if (main) for (const e of [...this.reads[i], ...this.readers[i]]) this.layers[3].append(svg("path", { class: "edge on", d: this.line(e) }));
        this.layers[3].append(svg("rect", { class: look, x: x - WIDE / 2 - 3, y: y - HIGH / 2 - 3, width: WIDE + 6, height: HIGH + 6, rx: 8 }));
      }
    }
    measure() { this.size = this.root.getBoundingClientRect(); }
    center(nodes) {
      if (!nodes.length) return;
      const xs = nodes.map(i => this.place(i)[0]);
      camera.x[this.index] = this.size.width / 2 - camera.k * (Math.min(...xs) + Math.max(...xs)) / 2;
    }
  }

  function group(items, keys) {
    const groups = new Map();
    for (const item of items) for (const key of keys(item)) groups.has(key) ? groups.get(key).push(item) : groups.set(key, [item]);
    return groups;
  }

  const panes = [new Pane(0, "before"), new Pane(1, "after")];
  const tall = () => Math.max(1, ...panes.flatMap(p => p.nodes.map(n => n[AT] + 1))) * ROW;
  const height = tall();

  function show() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; panes.forEach(p => p.draw()); document.documentElement.dataset.drawn ||= Math.ceil(performance.now()); });
  }
  function zoom(factor, side = 1, at = [panes[side].size.width / 2, panes[side].size.height / 2]) {
    const k = Math.min(3, Math.max(0.01, camera.k * factor)), by = k / camera.k;
    camera.y = at[1] - by * (at[1] - camera.y);
    panes.forEach((p, i) => { const x = i === side ? at[0] : p.size.width / 2; camera.x[i] = x - by * (x - camera.x[i]); });
    camera.k = k;
    show();
  }
  function fit() {
    const wide = panes.map(p => (p.size.width - 24) / (Math.max(p.width, 1) * COLUMN));
    camera.k = Math.min(1, ...wide, (panes[0].size.height - 24) / height);
    camera.y = 12;
    panes.forEach((p, i) => { camera.x[i] = (p.size.width - p.width * COLUMN * camera.k) / 2; });
    show();
  }
  function begin() {  // readable, at the top
    camera.k = 0.8;
    camera.y = 12;
    const top = panes[1].nodes.reduce((best, n, i, all) => (best < 0 || n[AT] < all[best][AT] ? i : best), -1);
    if (top >= 0) { panes[1].center([top]); panes[0].center(panes[1].nodes[top][OTHERS].slice(0, 1)); }
    show();
  }

  // -- what is chosen ---------------------------------------------------------------------------------------------
  function choose(side, i, quiet) {
    chosen = [side, i];
    const node = panes[side].nodes[i], kin = node[OTHERS], other = panes[1 - side];
    panes[side].mark([i], true);
    other.mark(kin, false);
    const ys = [i].map(n => panes[side].place(n)[1]).concat(kin.map(n => other.place(n)[1]));
    const low = Math.min(...ys) - ROW, high = Math.max(...ys) + ROW, seen = panes[side].size.height;
    if (camera.k < FAR && !quiet) camera.k = 0.8;
    if ((high - low) * camera.k > seen) camera.k = Math.max(FAR, seen / (high - low));
    const mine = panes[side].place(i), px = camera.x[side] + camera.k * mine[0];
    if (!quiet || px < 0 || px > panes[side].size.width) panes[side].center([i]);
    other.center(kin);
    if (camera.y + camera.k * low < 0 || camera.y + camera.k * high > seen)
      camera.y = seen / 2 - camera.k * ((high - low) * camera.k > seen ? mine[1] : (low + high) / 2);
    tell(side, i);
    remember(`node=${["before", "after"][side]}:${encodeURIComponent(node[KEY])}`);
    show();
  }
  function clear() {
    chosen = null;
    panes.forEach(p => p.mark([]));
    told.replaceChildren(lists);
    remember("");
  }
  const link = (side, i) => {
    const node = panes[side].nodes[i], b = html("button", { "data-side": side, "data-node": i }, node[KEY]);
    return html("li", {}, b, html("small", {}, ` ${node[OP]}, ${node[KIND]}`));
  };
  function values(title, names, types) {
    if (!names.some(Boolean)) return [];
    const items = names.map(n => n ? html("li", {}, html("b", {}, n), html("small", {}, Object.hasOwn(types, n) ? ` ${types[n]}` : "")) : html("li", {}, "–"));
    return [html("h3", {}, title), html("ol", { start: 0 }, ...items)];
  }
  function tell(side, i) {
    const pane = panes[side], node = pane.nodes[i], parts = [html("button", { id: "back" }, "← all that differs")];
    parts.push(html("h2", {}, node[OP]), html("p", { class: "key" }, node[KEY]), html("p", {}, html("span", { class: `chip ${node[KIND]}` }, `${data.signs[node[KIND]]} ${node[KIND]}`), ` ${data.meanings[node[KIND]]}`));
    if (node[NOTES].length) parts.push(html("ul", {}, ...node[NOTES].map(n => html("li", {}, n))));
    if (node[OTHERS].length) {
      const word = side === 1 ? "came from" : node[KIND] === "bypassed" ? "instead of it" : "became";
      parts.push(html("h3", {}, word), html("ul", {}, ...node[OTHERS].slice(0, LISTED).map(o => link(1 - side, o))));
    }
    const settings = Object.entries(node[SETTINGS]);
    if (settings.length) parts.push(html("h3", {}, "attributes"), html("dl", {}, ...settings.flatMap(([n, v]) => [html("dt", {}, n), html("dd", {}, v)])));
    parts.push(...values("inputs", node[INPUTS], pane.types), ...values("outputs", node[OUTPUTS], pane.types));
    const near = (edges, end) => edges.slice(0, LISTED).map(e => link(side, pane.edges[e][end]));
    if (pane.reads[i].length) parts.push(html("h3", {}, "computed from"), html("ul", {}, ...near(pane.reads[i], 0)));
    if (pane.readers[i].length) parts.push(html("h3", {}, "read by"), html("ul", {}, ...near(pane.readers[i], 1)));
    told.replaceChildren(html("div", { "aria-live": "polite" }, ...parts));
    told.scrollTop = 0;
  }
  function step(side, test, by) {  // the next one in reading order, round and round
    const { nodes } = panes[side], order = [...nodes.keys()].filter(i => test(nodes[i])).sort((a, b) => nodes[a][AT] - nodes[b][AT] || nodes[a][X] - nodes[b][X]);
    if (!order.length) return;
    const here = chosen && chosen[0] === side ? order.indexOf(chosen[1]) : -1;
    choose(side, order[(Math.max(here, by < 0 ? 0 : -1) + by + order.length) % order.length]);
  }
  const differs = node => node[KIND] !== "same";
  const remember = text => { try { history.replaceState(null, "", `#${text}`); } catch { /* a sandbox */ } };

  // -- search -----------------------------------------------------------------------------------------------------
  function find(text) {
    const word = text.trim().toLowerCase();
    hits = word ? [1, 0].flatMap(side => [...panes[side].nodes.keys()]
      .filter(i => [panes[side].nodes[i][KEY], panes[side].nodes[i][OP], ...panes[side].nodes[i][OUTPUTS]].some(t => t.toLowerCase().includes(word)))
      .map(i => [side, i])) : [];
    hit = -1;
    found.textContent = word ? `${hits.length}` : "";
    if (!word) return clear();
    const listed = [0, 1].flatMap(side => {
      const mine = hits.filter(h => h[0] === side).slice(0, LISTED);
      return mine.length ? [html("h3", {}, panes[side].name), html("ul", {}, ...mine.map(h => link(...h)))] : [];
    });
    told.replaceChildren(html("div", { id: "hits" }, html("h2", {}, `${hits.length} found`), ...listed));
    remember(`q=${encodeURIComponent(text)}`);
  }
  search.addEventListener("input", () => find(search.value));
  search.addEventListener("keydown", e => {
    if (e.key === "Enter" && hits.length) {
      hit = (hit + (e.shiftKey ? hits.length - 1 : 1)) % hits.length;
      choose(...hits[hit]);
      found.textContent = `${hit + 1}/${hits.length}`;
    } else if (e.key === "Escape") { search.value = ""; find(""); panes[1].root.focus(); }
  });

  // -- hands ------------------------------------------------------------------------------------------------------
  document.addEventListener("click", e => {
    const button = e.target.closest("button");
    if (!button) return;
    if (button.dataset.node) choose(+button.dataset.side, +button.dataset.node);
    else if (button.dataset.kind) step(panes[1].nodes.some(n => n[KIND] === button.dataset.kind) ? 1 : 0, n => n[KIND] === button.dataset.kind, 1);
    else ({ back: clear, next: () => step(1, differs, 1), in: () => zoom(1.3), out: () => zoom(1 / 1.3), fit })[button.id]?.();
  });
  for (const pane of panes) {
    let held = null;
    pane.root.addEventListener("wheel", e => {
      e.preventDefault();
      if (e.ctrlKey || e.metaKey) return zoom(Math.exp(-e.deltaY / 300), pane.index, [e.offsetX, e.offsetY]);
      camera.y -= e.shiftKey ? 0 : e.deltaY;
      camera.x[pane.index] -= e.shiftKey ? e.deltaY : e.deltaX;
      show();
    }, { passive: false });
    pane.root.addEventListener("pointerdown", e => { held = { x: e.clientX, y: e.clientY, moved: false, node: e.target.closest(".node") }; });
    pane.root.addEventListener("pointermove", e => {
      if (!held || !e.buttons) return;
      const [dx, dy] = [e.clientX - held.x, e.clientY - held.y];
      if (!held.moved && Math.hypot(dx, dy) < 4) return;
      if (!held.moved) pane.root.setPointerCapture(e.pointerId);
      Object.assign(held, { x: e.clientX, y: e.clientY, moved: true });
      camera.x[pane.index] += dx;
      camera.y += dy;
      show();
    });
    pane.root.addEventListener("pointerup", e => {
      if (held && !held.moved) {
        if (held.node) choose(pane.index, +held.node.dataset.i, true);
        else if (camera.k < FAR) zoom(0.8 / camera.k, pane.index, [e.offsetX, e.offsetY]);
      }
      held = null;
    });
  }
  document.addEventListener("keydown", e => {
    if (e.target === search || e.ctrlKey || e.metaKey || e.altKey) return;
    const [side, i] = chosen || [1, -1], pane = panes[side];
    const along = (edges, end) => { if (i < 0) step(1, () => true, 1); else if (edges[i].length) choose(side, pane.edges[edges[i][0]][end]); };
    const across = to => { if (i >= 0 && side !== to && pane.nodes[i][OTHERS].length) choose(to, pane.nodes[i][OTHERS][0]); };
    const keys = {
      "/": () => search.focus(), Escape: clear, n: () => step(1, differs, 1), p: () => step(1, differs, -1),
      "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), 0: fit,
      ArrowDown: () => along(pane.readers, 1), ArrowUp: () => along(pane.reads, 0), ArrowLeft: () => across(0), ArrowRight: () => across(1),
    };
    if (e.target.closest("aside") && e.key.startsWith("Arrow")) return;
    if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
  });
  function resize() { panes.forEach(p => p.measure()); show(); }
  addEventListener("resize", resize);
  function asked() {
    const [, what, side, text] = /^#(?:(node)=(before|after):|q=)(.*)$/s.exec(location.hash) || [];
    const word = text === undefined ? "" : decodeURIComponent(text);
    if (what) {
      const at = side === "before" ? 0 : 1, i = panes[at].nodes.findIndex(n => n[KEY] === word);
      if (i >= 0) choose(at, i);
    } else if (word) { search.value = word; find(word); if (hits.length) search.focus(); }
  }
  addEventListener("hashchange", asked);
  resize();
  begin();
  asked();
})();
