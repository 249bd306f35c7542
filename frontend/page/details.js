// What is known of one thing: a node, a layer, a step, a kernel.

class Details {
  constructor(app, host) { Object.assign(this, { app, host, tab: "kernel" }); }

  show(link) {
    const { work } = this.app, kind = link[0], rest = link.slice(1);
    const parts = { n: () => this.node(+rest), l: () => this.layer(rest), s: () => this.step(+rest), k: () => this.kernel(+rest) }[kind];
    this.host.scrollTop = 0;
    this.host.replaceChildren(...(parts ? parts() : this.nothing()).flat().filter(Boolean));
  }

  nothing() {
    const { work } = this.app;
    return [
      this.title("function", work.title === work.name ? work.title : `${work.title}: ${work.name}`),
      make("p", { className: "quiet", style: "margin:0" },
        "Click a layer, a node, a step or a kernel. Each row is one node, each column one stage of the compiler: ",
        make("span", { className: "plus" }, "green"), " where a pass has made the node, ",
        make("span", { className: "minus" }, "red"), " where the next one drops it, ",
        make("span", { className: "other" }, "blue"), " where it reads other rows than before."),
      this.facts([
        ["target", work.target],
        ["nodes", `${counted(work.stages[0].nodes.length)} as asked for, ${counted(work.stages.at(-1).nodes.length)} after all passes`],
        ["kernels", counted(work.kernels.length)],
        ["steps", counted(work.steps.length)],
      ]),
      this.section("Keys", this.facts([["/", "search"], ["Enter", "next found, with Shift the one before"], ["Esc", "end the search"],
        ["Alt ←", "back to what was shown before"], ["Ctrl + wheel", "zoom the graph"]])),
      this.code(-1, "What runs the kernels"),
    ];
  }

  node(id) {
    const { work } = this.app, node = work.nodes[id], row = work.rowOf[id];
    const here = work.at.map(nodes => nodes[row]), first = here.findIndex(n => n >= 0), last = here.findLastIndex(n => n >= 0);
    const kernels = work.kernelsOf(id), outputs = work.stages.at(-1).outputs.filter(o => o[0] === id).map(o => o[1]);
    const until = last < here.length - 1 ? `until "${work.stages[last + 1].name}" drops it` : "to the end";
    const from = first ? `made by "${work.stages[first].name}"` : "as asked for";
    const life = `${from}, ${until}`;
    const others = work.variants[row].filter(n => n !== id);
    return [
      this.title(work.ops[node[OP]][0], `%${row}  ${work.label(id)}`),
      this.facts([
        ["type", make("span", { className: "mono" }, work.type(id))],
        ["layer", this.layersOf(node)],
        ["value", this.figure(node[BYTES], "B")],
        ["arithmetic", this.figure(node[FLOPS], "FLOP")],
        ["is", outputs.join(", ")],
        ["stages", [make("div", { className: "life", title: life },
          ...here.map((n, k) => make("span", { className: n === id ? "on" : n >= 0 ? "half" : "", title: work.stages[k].name }))), make("span", { className: "quiet" }, life)]],
      ]),
      this.lines(node[ORIGINS]),
      this.links(`Reads (${node[INPUTS].length})`, node[INPUTS]),
      this.links(`Read by (${work.users[id].length})`, work.users[id]),
      this.links(`In other stages, reading ${others.length === 1 ? "something else" : "other things"}`, others),
      ...Object.entries(node[INSIDE]).map(([name, text]) => this.section(`Inside: ${name}`, this.lined(text))),
      kernels.length ? this.kernelSection(kernels, work.made[id] ? "Computed by" : "Part of") : null,
    ];
  }

  layersOf(node) {
    const { app } = this, names = [...new Set(node[ORIGINS].map(o => app.work.origins[o][0]).filter(Boolean))];
    return names.flatMap((name, k) => [k ? ", " : "", this.anchor(`l${name}`, name)]);
  }

  layer(name) {
    const { work } = this.app, section = work.sections.find(s => s.layer === name);
    if (!section) return this.nothing();
    const own = section.rows.map(row => work.at.at(-1)[row]).filter(id => id >= 0);
    const kernels = [...new Set(own.flatMap(id => work.made[id] ?? []))];
    const all = section.rows.flatMap(row => work.variants[row]);
    const origins = [...new Set(all.flatMap(id => work.nodes[id][ORIGINS]))].filter(o => work.origins[o][0] === name);
    const flops = work.flopsOf(section.rows);
    return [
      this.title("layer", work.shortOf(name)),
      this.facts([
        ["name", name],
        ["nodes", work.at.map(nodes => counted(section.rows.filter(row => nodes[row] >= 0).length)).filter((n, k, all) => !k || n !== all[k - 1]).join(" → ")],
        ["arithmetic", flops ? amount(flops, "FLOP") : ""],
      ]),
      this.lines(origins),
      this.links(`Nodes after all passes (${counted(own.length)})`, own),
      kernels.length ? this.kernelSection(kernels, "Computed by") : null,
    ];
  }

  step(k) {
    const { work } = this.app, step = work.steps[k];
    const slots = step[STEP.buffers].map(s => work.slots[s]);
    return [
      this.title(step[STEP.kind], step[STEP.kernel] < 0 ? step[STEP.text] : work.kernels[step[STEP.kernel]][1]),
      this.facts([
        ["step", String(k)],
        ["kernel", step[STEP.kernel] < 0 ? "" : this.anchor(`k${step[STEP.kernel]}`, work.kernels[step[STEP.kernel]][0])],
        ["bytes", this.figure(step[STEP.bytes], "B")],
        ["arithmetic", this.figure(step[STEP.flops], "FLOP")],
        ["made at", step[STEP.layers].join(", ")],
      ]),
      slots.length ? this.section(`Memory (${slots.length})`, make("div", { className: "links" },
        ...slots.map(([name, kind, type]) => make("a", { className: "link" }, make("span", { className: "id" }, name), type, make("span", { className: "ty" }, ` ${kind}`))))) : null,
      this.links(`Computes (${step[STEP.nodes].length})`, step[STEP.nodes]),
      step[STEP.kernel] < 0 ? null : this.code(step[STEP.kernel]),
    ];
  }

  kernel(k) {
    const { work } = this.app, [name, label] = work.kernels[k], steps = work.stepsOf[k];
    const nodes = [...new Set(steps.flatMap(s => work.steps[s][STEP.nodes]))];
    return [
      this.title("kernel", label),
      this.facts([["name", make("span", { className: "mono" }, name)], ["launches", counted(steps.length)]]),
      this.section("Launched by", make("div", { className: "links" }, ...steps.slice(0, 200).map(s =>
        this.anchor(`s${s}`, [make("span", { className: "id" }, `step ${s}`), layersOf(work, work.steps[s])])))),
      this.links(`Computes (${nodes.length})`, nodes),
      this.code(k),
    ];
  }

  // ---- parts

  title(kind, text) { return make("div", {}, make("div", { className: "kind" }, kind), make("h3", {}, text)); }

  section(title, ...content) { return make("div", {}, make("h4", {}, title), ...content); }

  facts(rows) {
    return make("dl", {}, ...rows.filter(([, value]) => value && value.length !== 0).flatMap(([name, value]) =>
      [make("dt", {}, name), make("dd", {}, ...[value].flat())]));
  }

  figure(formula, unit) {
    const { work } = this.app, spelled = work.spelled(formula);
    if (!spelled || spelled === "0") return "";
    const value = amount(work.value(formula), unit);
    return [value, /^\d+$/.test(spelled) ? "" : make("span", { className: "quiet mono" }, `  = ${spelled}`)];
  }

  anchor(link, content) {
    const a = make("a", { className: "link", href: "#", style: Array.isArray(content) ? "" : "display:inline;padding:0;color:var(--accent)" }, ...[content].flat());
    a.onclick = e => { e.preventDefault(); this.app.go(link); };
    return a;
  }

  links(title, ids) {
    const { work } = this.app;
    if (!ids.length) return null;
    const shown = ids.slice(0, 300);
    return this.section(title, make("div", { className: "links" }, ...shown.map(id => {
      const a = this.anchor(`n${id}`, [make("span", { className: "id" }, `%${work.rowOf[id]}`), work.label(id), make("span", { className: "ty" }, ` : ${work.type(id)}`)]);
      a.title = work.line(id);
      return a;
    }), ids.length > shown.length ? make("span", { className: "quiet" }, `and ${counted(ids.length - shown.length)} more`) : ""));
  }

  lines(origins) {
    const { app } = this, seen = new Map();
    for (const o of origins) if (app.work.place(o)) seen.set(app.work.place(o), app.work.origins[o][3]);
    if (!seen.size) return null;
    return this.section("Made at", ...[...seen].map(([place, code]) => {
      const at = this.anchor("", place);
      at.title = "search for all that this line has made";
      at.onclick = e => { e.preventDefault(); app.look(place); };
      return make("div", { className: "source" }, at, " ", code);
    }));
  }

  kernelSection(kernels, title) {
    const { work } = this.app, code = make("div", { style: "display:flex;flex-direction:column;flex:1" });
    const pick = make("div", { className: "kernelpick" });
    const choose = k => {
      code.replaceChildren(this.code(k));
      for (const a of pick.children) a.style.borderColor = +a.dataset.kernel === k ? "var(--accent)" : "";
    };
    kernels.slice(0, 60).forEach(k => {
      const [name, label] = work.kernels[k];
      const a = make("a", { href: "#", title: name, "data-kernel": String(k) }, make("i", { className: "dot", style: `--hue:${hue(name)}` }), label);
      a.onclick = e => { e.preventDefault(); choose(k); };
      a.ondblclick = () => this.app.go(`k${k}`);
      pick.append(a);
    });
    choose(kernels[0]);
    return [this.section(`${title} ${kernels.length === 1 ? "one kernel" : `${kernels.length} kernels`}`, pick), code];
  }

  lined(text) { return this.viewer({ text: () => text }, "text", "flex:none;height:240px"); }

  /** The code of a kernel in all its stages; -1: of what no kernel is. */
  code(kernel, title = "") {
    const names = { kernel: "Kernel", llvm: "LLVM IR", assembly: "Assembly", cuda: "CUDA C++" };
    const host = make("div", { className: "code" }, make("div", { className: "empty" }, "unpacking …"));
    this.app.work.text(kernel).then(texts => {
      const kinds = Object.keys(names).filter(k => k in texts), tabs = make("div", { className: "tabs" });
      const choose = kind => {
        this.tab = kind;
        [...tabs.children].forEach((b, k) => b.setAttribute("aria-selected", String(kinds[k] === kind)));
        host.querySelector(".list, .empty")?.remove();
        lineList(host, texts[kind], kind);
        copy.onclick = () => navigator.clipboard?.writeText(texts[kind]).then(() => { copy.textContent = "copied"; });
        copy.textContent = "copy";
      };
      const copy = make("button", { type: "button", className: "copy" });
      tabs.append(...kinds.map(kind => {
        const b = make("button", { type: "button", role: "tab" }, names[kind]);
        b.onclick = () => choose(kind);
        return b;
      }), copy);
      host.replaceChildren(tabs);
      choose(kinds.includes(this.tab) ? this.tab : kinds[0]);
    });
    return title ? make("div", { style: "display:flex;flex-direction:column;flex:1" }, make("h4", {}, title), host) : host;
  }

  viewer({ text }, kind, style) {
    const host = make("div", { className: "code", style });
    lineList(host, text(), kind);
    return host;
  }
}

/** A text of any length by its lines. */
function lineList(host, text, kind) {
  const lines = text.replace(/\n+$/, "").split("\n");
  const list = new List(host, 18, k => make("div", { className: "row" }, make("span", { className: "n" }, String(k + 1)), ...coloured(lines[k], kind)));
  list.reset(lines.length);
  return list;
}

const COLOURS = {
  kernel: /(?<c>;.*)|(?<w>\b(?:for|if|else|alloc|barrier|prefetch|kernel|parallel|serial|vector|unroll|block|thread|where)\b)|(?<v>\b[a-z]+\d+\b)|(?<d>\b\d[\w.]*)/g,
  llvm: /(?<c>;.*)|(?<w>\b(?:define|declare|internal|call|load|store|ret|br|label|phi|getelementptr|add|sub|mul|fadd|fsub|fmul|fdiv|icmp|fcmp|select|shufflevector|insertelement|extractelement|attributes|target|zext|sext|trunc|bitcast|alloca|splat)\b)|(?<v>[%@#][\w.]+)|(?<d>\b0x[0-9A-Fa-f]+|-?\b\d[\d.]*\b)/g,
  assembly: /(?<c>#.*)|(?<w>^\s*\.?[a-z][\w.]*)|(?<v>%[a-z]\w*)|(?<d>\$?-?\b0x[0-9a-f]+|\$-?\d+|-?\b\d+\b)/g,
  cuda: /(?<c>\/\/.*)|(?<w>\b(?:const|float|double|int|long|bool|unsigned|for|if|else|extern|__global__|__shared__|__restrict__|void|return)\b)|(?<d>\b\d[\w.]*)/g,
  text: /(?<v>%\d+)|(?<c>;.*)|(?<d>\b\d[\w.]*)/g,
};

function coloured(line, kind) {
  if (line.length > 4000) return [line];
  const parts = [];
  let from = 0;
  for (const m of line.matchAll(COLOURS[kind])) {
    const [style] = Object.entries(m.groups).find(([, text]) => text !== undefined);
    parts.push(line.slice(from, m.index), make("span", { className: style }, m[0]));
    from = m.index + m[0].length;
  }
  return [...parts, line.slice(from)];
}
