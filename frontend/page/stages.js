// All stages of the graph side by side: a row for each node, a column for each stage.

class StageView {
  constructor(app) {
    this.app = app;
    this.work = app.work;
    this.closed = new Set();
    const changed = this.work.changes.map((c, k) => k === 0 || c.born + c.gone + c.other > 0);
    this.shown = this.work.stages.map((_, k) => k).filter(k => changed[k]);
  }

  open(host, chips) {
    this.chips = chips;
    this.header = make("div", { className: "head" });
    this.list = new List(host, 24, k => this.row(k), this.header);
    this.columns();
    this.fill();
  }

  columns() {
    const { work } = this;
    const width = (this.list.outer.clientWidth - 290) / this.shown.length;  // what the first and last column leave
    this.list.outer.style.setProperty("--column", `${Math.max(320, Math.floor(width))}px`);
    this.header.replaceChildren(
      make("span", { className: "cell number" }, "row"),
      ...this.shown.map(k => make("span", { className: "cell stage" }, work.stages[k].name)),
      make("span", { className: "cell into" }, "kernel"),
    );
    this.chips.replaceChildren(
      make("span", { className: "quiet" }, "Stages"),
      ...work.stages.map((stage, k) => {
        const { born, gone, other } = work.changes[k], same = k > 0 && !(born + gone + other);
        const chip = make(
          "button",
          { type: "button", className: same ? "same" : "", title: same ? "this pass changed nothing here" : "",
            "aria-pressed": String(this.shown.includes(k)) },
          stage.name,
          born ? make("span", { className: "plus" }, `+${counted(born)}`) : "",
          gone ? make("span", { className: "minus" }, `−${counted(gone)}`) : "",
          other ? make("span", { className: "other" }, `~${counted(other)}`) : "",
        );
        chip.onclick = () => {
          const shown = new Set(this.shown);
          if (shown.has(k) && shown.size > 1) shown.delete(k);
          else shown.add(k);
          this.shown = [...shown].sort((a, b) => a - b);
          this.columns();
          this.fill();
        };
        return chip;
      }),
      make("span", { className: "quiet" }, make("span", { className: "plus" }, "■ new"), " ",
        make("span", { className: "minus" }, "■ gone after"), " ", make("span", { className: "other" }, "■ reads other rows")),
    );
  }

  fill() {
    const { work } = this, { search } = this.app;
    this.rows = [];
    let hits = 0;
    for (const section of work.sections) {
      const seen = section.rows.filter(row => this.shown.some(k => work.at[k][row] >= 0) && search.row(row));
      if (!seen.length) continue;
      hits += seen.length;
      this.rows.push({ section, seen });
      if (!this.closed.has(section.layer) || search.active) for (const row of seen) this.rows.push({ row });
    }
    this.list.reset(this.rows.length);
    return hits;
  }

  row(k) {
    const entry = this.rows[k];
    return entry.section ? this.layer(entry) : this.node(entry.row);
  }

  layer({ section, seen }) {
    const { work, app } = this, flops = work.flopsOf(section.rows);
    const counts = this.shown.map(k => section.rows.filter(row => work.at[k][row] >= 0).length).map(counted);
    const closed = this.closed.has(section.layer);
    const row = make(
      "div", { className: `row layer${app.link === `l${section.layer}` ? " chosen" : ""}` },
      make("div", { className: "name" },
        make("i", { className: "twist", title: closed ? "open" : "close", style: "font-style:normal" }, closed ? "▸" : "▾"),
        make("b", {}, ...app.search.marked(work.shortOf(section.layer))),
        make("span", {}, `${counts.filter((n, k) => !k || n !== counts[k - 1]).join(" → ")} nodes`),
        flops ? make("span", {}, amount(flops, "FLOP")) : "",
        app.search.active ? make("span", {}, `${counted(seen.length)} found`) : ""),
    );
    row.onclick = e => {
      if (!e.target.classList.contains("twist")) return app.go(`l${section.layer}`);
      if (closed) this.closed.delete(section.layer);
      else this.closed.add(section.layer);
      this.fill();
    };
    return row;
  }

  node(row) {
    const { work, app } = this, id = work.latest(row);
    const kernels = work.kernelsOf(id), melted = !work.made[id], chosen = app.link[0] === "n" ? +app.link.slice(1) : -1;
    const variants = work.variants[row];
    const near = chosen >= 0 && (work.nodes[chosen][INPUTS].some(x => variants.includes(x)) || work.users[chosen].some(x => variants.includes(x)));
    const line = make("div", {
      className: `row node${variants.includes(chosen) ? " chosen" : ""}${near ? " near" : ""}${melted ? " melted" : ""}`,
    });
    line.append(make("span", { className: "cell number" }, `%${row}`));
    this.shown.forEach((k, n) => {
      const cell = make("span", { className: "cell stage" }), here = work.at[k][row];
      if (here >= 0) {
        // against the stages in sight, which may leave some out
        const before = n ? work.at[this.shown[n - 1]][row] : here;
        const next = this.shown[n + 1] ?? work.stages.length - 1;
        const states = [before < 0 ? " born" : before !== here && work.rewired(before, here) ? " other" : "",
          work.at[next][row] < 0 ? " last" : ""].join("");
        cell.className += states || (n ? " kept" : "");
        cell.style.paddingLeft = `${8 + 14 * work.nodes[here][DEPTH]}px`;
        const text = work.line(here), type = work.type(here);
        cell.append(...app.search.marked(text), make("span", { className: "ty" }, ` : ${type}`));
        cell.title = `${text} : ${type}`;
        cell.onclick = e => { e.stopPropagation(); app.go(`n${here}`); };
      }
      line.append(cell);
    });
    const into = make("span", { className: "cell into" });
    if (kernels.length) {
      const [name, label] = work.kernels[kernels[0]];
      into.append(make("i", { className: "dot", style: `--hue:${hue(name)}` }), (melted ? "in " : "") + label,
        kernels.length > 1 ? ` +${kernels.length - 1}` : "");
      into.title = kernels.map(k => work.kernels[k][0]).join("\n");
    }
    line.append(into);
    line.onclick = () => app.go(`n${id}`);
    return line;
  }

  /** Bring what a link means into sight; it is opened, and a stage that has it is shown. */
  reveal(link) {
    const { work } = this;
    const row = link[0] === "n" ? work.rowOf[+link.slice(1)] : -1;
    if (row >= 0) {
      if (!this.shown.some(k => work.at[k][row] >= 0)) {
        this.shown = [...this.shown, work.at.findIndex(nodes => nodes[row] >= 0)].sort((a, b) => a - b);
        this.columns();
      }
      this.closed.delete(work.layerOf[+link.slice(1)]);
      this.fill();
    }
    const k = this.rows.findIndex(r => (r.section ? link === `l${r.section.layer}` : r.row === row));
    if (k >= 0) this.list.show(k);
    else this.list.draw();
  }
}
