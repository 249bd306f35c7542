// The program: its steps in order, or its kernels; bytes and arithmetic of each.

class TableView {
  /** `columns` are [title, class, row -> text or element, row -> number to sort by or null]. */
  constructor(app, columns, every, linkOf, match) {
    Object.assign(this, { app, columns, every, linkOf, match, by: -1 });
  }

  open(host, chips) {
    chips.replaceChildren();
    this.header = make("div", { className: "head" });
    this.list = new List(host, 26, k => this.row(k), this.header);
    this.heads();
    this.fill();
  }

  heads() {
    this.header.replaceChildren(...this.columns.map(([title, style, , key], k) => {
      if (!key) return make("span", { className: `cell ${style}` }, title);
      const button = make("button", { type: "button", className: `cell ${style}`, title: "sort by this" }, title);
      if (this.by === k) { button.setAttribute("aria-sort", "descending"); button.textContent += " ↓"; }
      button.onclick = () => { this.by = this.by === k ? -1 : k; this.heads(); this.fill(); };
      return button;
    }));
  }

  fill() {
    this.rows = this.every.filter(k => this.match(k));
    if (this.by >= 0) {
      const key = this.columns[this.by][3];
      this.rows.sort((a, b) => key(b) - key(a));
    }
    this.list.reset(this.rows.length);
    return this.rows.length;
  }

  row(k) {
    const item = this.rows[k], link = this.linkOf(item);
    const row = make("div", { className: `row node${this.app.link === link ? " chosen" : ""}` },
      ...this.columns.map(([, style, cell]) => make("span", { className: `cell ${style}` }, ...[cell(item)].flat())));
    row.onclick = () => this.app.go(link);
    return row;
  }

  reveal(link) {
    const k = this.rows.findIndex(item => this.linkOf(item) === link);
    if (k >= 0) this.list.show(k);
    else this.list.draw();
  }
}

function stepsView(app) {
  const { work } = app;
  const of = (k, field) => work.value(work.steps[k][STEP[field]]);
  const all = work.steps.map((_, k) => k);
  const most = Math.max(1, ...all.map(k => of(k, "bytes")));
  const what = k => {
    const step = work.steps[k], pad = "  ".repeat(step[STEP.depth]);
    if (step[STEP.kernel] < 0) return [pad, ...app.search.marked(step[STEP.text])];
    const [name, label] = work.kernels[step[STEP.kernel]];
    return [pad, make("i", { className: "dot", style: `--hue:${hue(name)}` }), ...app.search.marked(label), " ",
      make("span", { className: "quiet" }, layersOf(work, step))];
  };
  return new TableView(app, [
    ["step", "number", k => String(k), null],
    ["what", "what", what, null],
    ["bytes", "figure", k => (of(k, "bytes") ? amount(of(k, "bytes"), "B") : ""), k => of(k, "bytes")],
    ["", "bar", k => make("i", { style: `width:${(100 * of(k, "bytes")) / most}%` }), null],
    ["arithmetic", "figure", k => (of(k, "flops") ? amount(of(k, "flops"), "FLOP") : ""), k => of(k, "flops")],
  ], all, k => `s${k}`, k => app.search.step(k));
}

function layersOf(work, step) {
  const names = new Set(step[STEP.nodes].map(id => work.layerOf[id]).filter(Boolean).map(work.shortOf));
  return [...names].slice(0, 3).join(", ") + (names.size > 3 ? ` and ${names.size - 3} more` : "");
}

function kernelsView(app) {
  const { work } = app;
  const sum = (k, field) => work.stepsOf[k].reduce((s, n) => s + work.value(work.steps[n][STEP[field]]), 0);
  const all = work.kernels.map((_, k) => k);
  const most = Math.max(1, ...all.map(k => sum(k, "flops")));
  return new TableView(app, [
    ["kernel", "what", k => [make("i", { className: "dot", style: `--hue:${hue(work.kernels[k][0])}` }),
      ...app.search.marked(work.kernels[k][1]), " ",
      make("span", { className: "quiet" }, ...app.search.marked(work.kernels[k][0]))], null],
    ["launches", "figure", k => counted(work.stepsOf[k].length), k => work.stepsOf[k].length],
    ["bytes", "figure", k => amount(sum(k, "bytes"), "B"), k => sum(k, "bytes")],
    ["arithmetic", "figure", k => amount(sum(k, "flops"), "FLOP"), k => sum(k, "flops")],
    ["", "bar", k => make("i", { style: `width:${(100 * sum(k, "flops")) / most}%` }), null],
  ], all, k => `k${k}`, k => app.search.kernel(k));
}
