// The graph of the layers (of a function without layers: of its nodes), drawn on a canvas.

const BOX = { width: 178, height: 40, across: 20, down: 26 };

/** Of all edges together, between the boxes they lead past. */
const PLACES = 6000;

/** Boxes and the curves between them: ranks by longest path, few crossings, neighbours above one another. */
class Layout {
  constructor(count, edges) {
    const rank = new Array(count).fill(0);
    for (const [a, b] of [...edges].sort((p, q) => p[0] - q[0])) rank[b] = Math.max(rank[b], rank[a] + 1);
    // an edge over several ranks has a place of its own in each
    this.places = Array.from({ length: count }, (_, k) => ({ box: k, rank: rank[k], up: [], down: [] }));
    const span = ([a, b]) => rank[b] - rank[a];
    let room = PLACES;
    this.chains = [];
    this.far = [];  // edges with no place between: drawn when one of their ends is chosen
    for (const [a, b] of [...edges].sort((p, q) => span(p) - span(q))) {
      room -= span([a, b]) - 1;
      const chain = [a];
      for (let r = rank[a] + 1; room >= 0 && r < rank[b]; r++) {
        this.places.push({ box: -1, rank: r, up: [], down: [] });
        chain.push(this.places.length - 1);
      }
      chain.push(b);
      (room >= 0 ? this.chains : this.far).push(chain);
      if (room < 0) continue;
      for (let k = 1; k < chain.length; k++) {
        this.places[chain[k]].up.push(chain[k - 1]);
        this.places[chain[k - 1]].down.push(chain[k]);
      }
    }
    this.ranks = [];
    this.places.forEach((p, k) => (this.ranks[p.rank] ??= []).push(k));
    this._order();
    this._align();
  }

  _order() {
    const at = new Array(this.places.length);
    const note = () => this.ranks.forEach(row => row.forEach((p, k) => { at[p] = (k + 0.5) / row.length; }));
    note();
    for (let turn = 0; turn < 8; turn++) {
      const side = turn % 2 ? "down" : "up";
      const rows = turn % 2 ? [...this.ranks].reverse() : this.ranks;
      for (const row of rows) {
        const middle = p => {
          const near = this.places[p][side];
          return near.length ? near.reduce((s, x) => s + at[x], 0) / near.length : at[p];
        };
        const wanted = new Map(row.map(p => [p, middle(p)]));
        row.sort((p, q) => wanted.get(p) - wanted.get(q));
        row.forEach((p, k) => { at[p] = (k + 0.5) / row.length; });
      }
    }
  }

  _align() {
    const gap = p => (this.places[p].box < 0 ? BOX.across : BOX.width + BOX.across);
    for (const row of this.ranks) {
      let x = 0;
      for (const p of row) { this.places[p].x = x + gap(p) / 2; x += gap(p); }
      for (const p of row) this.places[p].x -= x / 2;
    }
    for (let turn = 0; turn < 12; turn++) {
      const side = turn % 2 ? "down" : "up";
      for (const row of turn % 2 ? [...this.ranks].reverse() : this.ranks) {
        const wish = row.map(p => {
          const near = this.places[p][side];
          return near.length ? near.reduce((s, x) => s + this.places[x].x, 0) / near.length : this.places[p].x;
        });
        const right = [...wish], left = [...wish];
        for (let k = 1; k < row.length; k++) {
          right[k] = Math.max(right[k], right[k - 1] + (gap(row[k]) + gap(row[k - 1])) / 2);
        }
        for (let k = row.length - 2; k >= 0; k--) {
          left[k] = Math.min(left[k], left[k + 1] - (gap(row[k]) + gap(row[k + 1])) / 2);
        }
        row.forEach((p, k) => { this.places[p].x = (right[k] + left[k]) / 2; });
      }
    }
    for (const p of this.places) p.y = p.rank * (BOX.height + BOX.down);
    const xs = this.places.map(p => p.x);
    this.left = Math.min(0, ...xs) - BOX.width / 2;
    this.right = Math.max(0, ...xs) + BOX.width / 2;
    this.bottom = (this.ranks.length || 1) * (BOX.height + BOX.down) - BOX.down;
  }
}

class Graph {
  constructor(canvas, choose) {
    Object.assign(this, { canvas, choose, scale: 1, x: 0, y: 0, boxes: [], hit: null, chosen: "" });
    canvas.addEventListener("wheel", e => this._wheel(e), { passive: false });
    canvas.addEventListener("pointerdown", e => this._press(e));
    canvas.addEventListener("keydown", e => this._key(e));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** The graph of a function; `work` as in data.js. */
  load(work) {
    this.work = work;
    const layered = work.sections.some(s => s.layer !== REST);
    const first = work.at[0], key = new Map();
    this.boxes = [];
    const add = (rows, box) => {
      for (const row of rows) key.set(row, this.boxes.length);
      this.boxes.push({ rows, ...box });
    };
    if (layered) {
      for (const { layer, rows } of work.sections) {
        if (layer === REST || !rows.some(row => first[row] >= 0)) continue;
        add(rows, { link: `l${layer}`, name: work.shortOf(layer) });
      }
    } else {
      for (const id of work.stages[0].nodes.filter(id => !work.nodes[id][DEPTH] && !work.constant(id))) {
        add([work.rowOf[id]], { link: `n${id}`, name: `%${work.rowOf[id]} ${work.label(id)}`, type: work.type(id) });
      }
    }
    this.layered = layered;
    const edges = new Map();
    for (const id of work.stages[0].nodes) {
      const b = key.get(work.rowOf[id]);
      if (b === undefined || work.constant(id)) continue;
      for (const x of work.nodes[id][INPUTS]) {
        const a = key.get(work.rowOf[x]);
        // what layers share because it is the same number is no edge, nor are gradients, which go backwards
        if (a < b && !work.constant(x)) edges.set(a * this.boxes.length + b, [a, b]);
      }
    }
    this.layout = new Layout(this.boxes.length, [...edges.values()]);
    this.reckon();
    this.home();
  }

  /** What boxes say of arithmetic, for the sizes that are set. */
  reckon() {
    const { work } = this;
    for (const box of this.boxes) box.flops = work.flopsOf(box.rows);
    this.most = Math.max(1, ...this.boxes.map(b => b.flops));
    for (const box of this.boxes) {
      const parts = [box.type ?? `${counted(box.rows.length)} nodes`];
      if (box.flops) parts.push(amount(box.flops, "FLOP"));
      box.about = parts.join(" · ");
    }
    this.draw();
  }

  home() {
    const { clientWidth: w } = this.canvas;
    const wide = this.layout.right - this.layout.left + 30;
    this.scale = Math.min(1, Math.max(0.42, w / wide));
    this.x = w / 2 - ((this.layout.left + this.layout.right) / 2) * this.scale;
    this.y = 18;
    this.draw();
  }

  fit() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const wide = this.layout.right - this.layout.left + 30, tall = this.layout.bottom + 30;
    this.scale = Math.min(1, w / wide, h / tall);
    this.x = w / 2 - ((this.layout.left + this.layout.right) / 2) * this.scale;
    this.y = Math.max(15 * this.scale, (h - tall * this.scale) / 2);
    this.draw();
  }

  /** Mark the box of a link, and bring it into sight. */
  select(link) {
    this.chosen = link;
    const k = this.boxes.findIndex(b => b.link === link);
    if (k >= 0) {
      const p = this.layout.places[k], { clientWidth: w, clientHeight: h } = this.canvas;
      const x = p.x * this.scale + this.x, y = p.y * this.scale + this.y;
      if (x < 0 || x > w) this.x += w / 2 - x;
      if (y < 0 || y > h - BOX.height * this.scale) this.y += h / 2 - y;
    }
    this.draw();
  }

  /** Which boxes a search found: null for no search. */
  found(search) {
    this.hit = search.active ? new Set(this.boxes.filter(b => b.rows.some(row => search.row(row)))) : null;
    this.draw();
  }

  draw() {
    if (!this.layout || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this._draw(); });
  }

  _draw() {
    const { canvas, scale } = this, { clientWidth: w, clientHeight: h } = canvas, dots = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * dots) || canvas.height !== Math.round(h * dots)) {
      canvas.width = Math.round(w * dots);
      canvas.height = Math.round(h * dots);
    }
    const style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(name).trim();
    const c = canvas.getContext("2d");
    c.setTransform(dots, 0, 0, dots, 0, 0);
    c.clearRect(0, 0, w, h);
    c.translate(this.x, this.y);
    c.scale(scale, scale);
    const top = -this.y / scale - 60, bottom = (h - this.y) / scale + 60;
    c.lineWidth = 1.2 / Math.max(scale, 0.6);
    const lines = chain => {
      c.beginPath();
      chain.forEach((k, n) => {
        const p = this.layout.places[k];
        if (!n) c.moveTo(p.x, p.y + BOX.height);
        else {
          const q = this.layout.places[chain[n - 1]], from = q.box < 0 ? q.y + BOX.height / 2 : q.y + BOX.height;
          const to = p.box < 0 ? p.y + BOX.height / 2 : p.y, middle = (from + to) / 2;
          c.bezierCurveTo(q.x, middle, p.x, middle, p.x, to);
        }
      });
      c.stroke();
    };
    const chosen = this.boxes.findIndex(b => b.link === this.chosen);
    const near = chain => chosen >= 0 && (chain[0] === chosen || chain[chain.length - 1] === chosen);
    const seen = chain => this.layout.places[chain[0]].y < bottom &&
      this.layout.places[chain[chain.length - 1]].y > top;
    c.strokeStyle = colour("--faint");
    for (const chain of this.layout.chains) if (seen(chain) && !near(chain)) lines(chain);
    c.strokeStyle = colour("--accent");
    c.lineWidth *= 1.8;
    for (const chain of [...this.layout.chains, ...this.layout.far]) if (seen(chain) && near(chain)) lines(chain);
    const readable = scale > 0.3;
    this.boxes.forEach((box, k) => {
      const p = this.layout.places[k];
      if (p.y > bottom || p.y + BOX.height < top) return;
      const x = p.x - BOX.width / 2, dim = this.hit && !this.hit.has(box);
      c.globalAlpha = dim ? 0.3 : 1;
      c.fillStyle = colour(k === chosen ? "--accent-soft" : "--panel");
      c.strokeStyle = colour(k === chosen || (this.hit && !dim) ? "--accent" : "--line");
      c.lineWidth = (k === chosen || (this.hit && !dim) ? 2 : 1.2);
      c.beginPath();
      c.roundRect(x, p.y, BOX.width, BOX.height, 7);
      c.fill();
      c.stroke();
      if (box.flops) {
        c.fillStyle = colour("--accent");
        c.globalAlpha *= 0.85;
        c.fillRect(x + 8, p.y + BOX.height - 4, Math.max(2, (BOX.width - 16) * box.flops / this.most), 2.5);
        c.globalAlpha = dim ? 0.3 : 1;
      }
      if (!readable) return;
      c.save();
      c.beginPath();
      c.rect(x + 6, p.y, BOX.width - 12, BOX.height);
      c.clip();
      c.textBaseline = "alphabetic";
      c.fillStyle = colour("--ink");
      c.font = "600 12px system-ui, 'DejaVu Sans', sans-serif";
      c.fillText(clipped(c, box.name, BOX.width - 20), x + 10, p.y + 16);
      c.fillStyle = colour("--soft");
      c.font = "11px system-ui, 'DejaVu Sans', sans-serif";
      c.fillText(clipped(c, box.about, BOX.width - 20), x + 10, p.y + 31);
      c.restore();
    });
    c.globalAlpha = 1;
  }

  _at(e) {
    const r = this.canvas.getBoundingClientRect();
    const x = (e.clientX - r.left - this.x) / this.scale, y = (e.clientY - r.top - this.y) / this.scale;
    return this.boxes[this.boxes.findIndex((_, k) => {
      const p = this.layout.places[k];
      return Math.abs(x - p.x) < BOX.width / 2 && y > p.y && y < p.y + BOX.height;
    })];
  }

  _wheel(e) {
    e.preventDefault();
    if (e.ctrlKey || e.metaKey) this._zoom(Math.exp(-e.deltaY / 300), e);
    else { this.x -= e.shiftKey ? e.deltaY : e.deltaX; this.y -= e.shiftKey ? 0 : e.deltaY; this.draw(); }
  }

  _zoom(by, e) {
    const r = this.canvas.getBoundingClientRect(), new_ = Math.min(2.5, Math.max(0.05, this.scale * by));
    const x = e ? e.clientX - r.left : r.width / 2, y = e ? e.clientY - r.top : r.height / 2;
    this.x = x - (x - this.x) * new_ / this.scale;
    this.y = y - (y - this.y) * new_ / this.scale;
    this.scale = new_;
    this.draw();
  }

  _press(e) {
    const start = { x: e.clientX, y: e.clientY, left: this.x, top: this.y };
    let moved = false;
    this.canvas.setPointerCapture(e.pointerId);
    const move = m => {
      moved ||= Math.abs(m.clientX - start.x) + Math.abs(m.clientY - start.y) > 4;
      if (!moved) return;
      this.x = start.left + m.clientX - start.x;
      this.y = start.top + m.clientY - start.y;
      this.draw();
    };
    const up = m => {
      this.canvas.removeEventListener("pointermove", move);
      this.canvas.removeEventListener("pointerup", up);
      const box = moved ? undefined : this._at(m);
      if (box) this.choose(box.link);
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", up);
  }

  _key(e) {
    const by = { "+": 1.25, "=": 1.25, "-": 0.8 }[e.key];
    const step = { ArrowUp: [0, 60], ArrowDown: [0, -60], ArrowLeft: [60, 0], ArrowRight: [-60, 0] }[e.key];
    if (by) this._zoom(by);
    else if (step) { this.x += step[0]; this.y += step[1]; this.draw(); }
    else return;
    e.preventDefault();
  }
}

function clipped(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let low = 0, high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (c.measureText(text.slice(0, middle) + "…").width <= width) low = middle;
    else high = middle - 1;
  }
  return text.slice(0, low) + "…";
}
