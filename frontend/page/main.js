// The whole: which function, which view, what is chosen. The address holds it, so that going back works.

class App {
  constructor() {
    this.link = "";
    this.details = new Details(this, $("details"));
    this.graph = new Graph($("graph"), link => this.go(link));
    this.loaded = new Map();
    $("title").textContent = head.title;
    this._bar();
    window.addEventListener("hashchange", () => this.follow());
  }

  async follow() {
    const [name, link = ""] = location.hash.slice(1).split("!").map(decodeURIComponent);
    const known = head.functions.some(f => f.name === name) ? name : head.functions[0].name;
    await this.load(known);
    this.choose(link);
  }

  go(link) {
    const hash = `#${encodeURIComponent(this.name)}!${encodeURIComponent(link)}`;
    if (hash === location.hash) this.choose(link);
    else location.hash = hash;
  }

  choose(link) {
    this.link = link;
    if (link[0] === "s" && this.tab !== "program") this.view("program");
    if (link[0] === "k" && this.tab === "stages") this.view("kernels");
    if ((link[0] === "n" || link[0] === "l") && this.tab !== "stages") this.view("stages");
    this.details.show(link);
    this.current?.reveal(link);
    this.graph.select(link[0] === "n" && this.graph.layered ? `l${this.work.layerOf[+link.slice(1)]}` : link);
  }

  async load(name) {
    if (this.name === name) return;
    this.name = name;
    for (const b of $("functions").children) b.setAttribute("aria-selected", String(b.textContent === name));
    if (!this.loaded.has(name)) {
      const data = await unpack(head.functions.find(f => f.name === name).blob);
      this.loaded.set(name, new Work(data));
    }
    this.work = this.loaded.get(name);
    this.search = new Search(this.work);
    this.search.set($("search").value);
    this.views = { stages: new StageView(this), program: stepsView(this), kernels: kernelsView(this) };
    this._sizes();
    this.graph.load(this.work);
    const layers = this.work.sections.filter(s => s.layer !== REST).length;
    $("left").querySelector("h2").textContent = layers ? "Layers" : "Nodes";
    $("layercount").textContent = counted(layers || this.work.stages[0].nodes.length);
    this.view(this.tab ?? "stages");
    document.documentElement.dataset.ready = name;
  }

  view(tab) {
    this.tab = tab;
    const titles = { stages: "Stages", program: `Program (${counted(this.work.steps.length)} steps)`, kernels: `Kernels (${counted(this.work.kernels.length)})` };
    $("tabs").replaceChildren(...Object.entries(titles).map(([key, title]) => {
      const b = make("button", { type: "button", role: "tab", "aria-selected": String(key === tab) }, title);
      b.onclick = () => this.view(key);
      return b;
    }));
    $("view").replaceChildren();
    this.current = this.views[tab];
    this.current.open($("view"), $("chips"));
    this._figures();
    this._found();
  }

  /** Search for something, as if it had been typed. */
  look(query) {
    $("search").value = query;
    this._searched();
  }

  _searched() {
    this.search.set($("search").value);
    this.at = -1;
    this._found();
    this.graph.found(this.search);
  }

  _found() {
    const hits = this.current.fill();
    $("found").textContent = this.search.active ? `${counted(hits)} found` : "";
    const none = this.search.active && !hits;
    $("view").querySelector(".empty")?.remove();
    if (none) $("view").append(make("div", { className: "empty" }, `Nothing here has all of: ${this.search.words.join(", ")}`));
    this.current.list.outer.style.display = none ? "none" : "";
  }

  _next(by) {
    const rows = this.current.rows, links = rows.map(r => (typeof r === "number" ? this.current.linkOf(r) : r.section ? null : `n${this.work.latest(r.row)}`)).filter(Boolean);
    if (!links.length) return;
    this.at = (((this.at ?? -1) + by) % links.length + links.length) % links.length;
    this.go(links[this.at]);
  }

  _figures() {
    const { work } = this, sum = field => work.steps.reduce((s, step) => s + work.value(step[STEP[field]]), 0);
    const figures = [
      [counted(work.stages[0].nodes.length), "nodes as asked for"], [counted(work.stages.at(-1).nodes.length), "after all passes"],
      [counted(work.kernels.length), "kernels"], [counted(work.steps.filter(s => s[STEP.kernel] >= 0).length), "launches"],
      [amount(sum("bytes"), "B"), "moved"], [amount(sum("flops"), "FLOP"), "of arithmetic"],
    ];
    $("figures").replaceChildren(...figures.map(([value, what]) => make("span", {}, make("b", {}, value), ` ${what}`)));
  }

  _sizes() {
    const { work } = this;
    $("sizes").replaceChildren(...Object.keys(work.size).map(name => {
      const input = make("input", { type: "number", min: "0", value: String(work.size[name]) });
      input.oninput = () => {
        work.size[name] = Math.max(0, Math.floor(+input.value || 0));
        this.graph.reckon();
        this.views.program = stepsView(this);
        this.views.kernels = kernelsView(this);
        if (this.tab === "stages") { this.current.list.draw(); this._figures(); } else this.view(this.tab);
        this.details.show(this.link);
      };
      return make("label", {}, name, input);
    }));
    $("sizes").onsubmit = e => e.preventDefault();
  }

  _bar() {
    $("functions").replaceChildren(...head.functions.map(f => {
      const b = make("button", { type: "button", role: "tab" }, f.name);
      b.onclick = () => { location.hash = `#${encodeURIComponent(f.name)}!`; };
      return b;
    }));
    $("functions").hidden = head.functions.length < 2;
    if (head.functions.length < 2) $("functions").style.display = "none";
    const field = $("search");
    let timer = 0;
    field.oninput = () => { clearTimeout(timer); timer = setTimeout(() => this._searched(), 120); };
    field.onkeydown = e => {
      if (e.key === "Escape") { this.look(""); field.blur(); }
      if (e.key === "Enter") { clearTimeout(timer); if (field.value.trim()) { this.search.set(field.value); this._found(); this._next(e.shiftKey ? -1 : 1); } }
    };
    document.addEventListener("keydown", e => {
      if (e.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { e.preventDefault(); field.focus(); field.select(); }
    });
    $("fit").onclick = () => this.graph.fit();
    const dark = on => { document.documentElement.classList.toggle("dark", on); this.graph?.draw(); };
    dark(matchMedia("(prefers-color-scheme: dark)").matches);
    $("theme").onclick = () => dark(!document.documentElement.classList.contains("dark"));
    for (const grip of document.querySelectorAll(".grip")) {
      grip.onpointerdown = e => {
        const side = grip.dataset.pane, root = document.documentElement, from = $(side).clientWidth, x = e.clientX;
        grip.setPointerCapture(e.pointerId);
        grip.onpointermove = m => {
          const by = (m.clientX - x) * (side === "left" ? 1 : -1);
          root.style.setProperty(`--${side}`, `${Math.min(900, Math.max(120, from + by))}px`);
        };
        grip.onpointerup = () => { grip.onpointermove = null; };
      };
    }
  }
}

if (typeof DecompressionStream === "undefined") {
  document.body.textContent = "This browser cannot unpack the page: it needs one of 2023 or later.";
} else {
  window.app = new App();
  window.app.follow();
}
