// Data: unpacking, sizes, and what follows from the tables.

const $ = id => document.getElementById(id);
const head = JSON.parse($("head").textContent);
const blobs = [...document.querySelectorAll('script[type="application/x-blob"]')];

async function unpack(number) {
  const letters = atob(blobs[number].textContent);
  const bytes = new Uint8Array(letters.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = letters.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** An element with properties, attributes (`aria-...`, `data-...`) and children; texts are texts, never HTML. */
function make(tag, properties = {}, ...children) {
  const e = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "style") e.setAttribute(key, value);
    else e[key] = value;
  }
  e.append(...children.filter(c => c !== null && c !== undefined && c !== ""));
  return e;
}

function evaluate(formula, sizes) {
  if (typeof formula === "number") return formula;
  let total = 0;
  for (const [factor, atoms] of formula) {
    let term = factor;
    for (const a of atoms) {
      if (typeof a === "string") term *= sizes[a] ?? 0;
      else {
        const x = evaluate(a[1], sizes), y = evaluate(a[2], sizes);
        term *= a[0] === "div" ? Math.floor(x / y) : Math.max(x, y);
      }
    }
    total += term;
  }
  return total;
}

function amount(value, unit) {
  if (!Number.isFinite(value)) return "?";
  const step = unit === "B" ? 1024 : 1000;
  const names = unit === "B" ? ["B", "KiB", "MiB", "GiB", "TiB"] : ["", "k", "M", "G", "T"].map(p => p + unit);
  let k = 0;
  while (value >= step && k < names.length - 1) { value /= step; k++; }
  return `${k ? value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0) : Math.round(value)} ${names[k]}`.trim();
}

const counted = n => n.toLocaleString("en-US");

/** A steady colour for a name. */
function hue(name) {
  let h = 2166136261;
  for (let k = 0; k < name.length; k++) h = Math.imul(h ^ name.charCodeAt(k), 16777619);
  return `hsl(${(h >>> 0) % 360} 55% 52%)`;
}

const OP = 0, TYPE = 1, INPUTS = 2, ORIGINS = 3, BYTES = 4, FLOPS = 5, DEPTH = 6, INSIDE = 7;
const STEP = { kind: 0, depth: 1, text: 2, kernel: 3, bytes: 4, flops: 5, nodes: 6, buffers: 7, layers: 8 };
const REST = "";

/** One function: its tables, and what is found from them once. */
class Work {
  constructor(data) {
    Object.assign(this, data);
    this.size = Object.fromEntries(this.sizes);
    const count = this.nodes.length;
    this.users = Array.from({ length: count }, () => []);
    this.nodes.forEach((node, id) => { for (const x of new Set(node[INPUTS])) this.users[x].push(id); });
    this.rows = 1 + Math.max(-1, ...this.rowOf);
    // the node of each row in each stage, -1 for none
    this.at = this.stages.map(stage => {
      const nodes = new Int32Array(this.rows).fill(-1);
      for (const id of stage.nodes) nodes[this.rowOf[id]] = id;
      return nodes;
    });
    this.variants = Array.from({ length: this.rows }, () => []);
    this.nodes.forEach((_, id) => this.variants[this.rowOf[id]].push(id));
    this.changes = this.stages.map((_, k) => (k ? this.change(k - 1, k) : { born: 0, gone: 0, other: 0 }));
    this.sections = this._sections();
    this.stepsOf = this.kernels.map(() => []);
    this.steps.forEach((step, k) => { if (step[STEP.kernel] >= 0) this.stepsOf[step[STEP.kernel]].push(k); });
    this.unpacked = new Map();
  }

  _sections() {
    const found = new Map();
    const layer = node => (node[ORIGINS].length ? this.origins[node[ORIGINS][0]][0] : REST);
    this.layerOf = this.nodes.map(layer);
    this.shortOf = name => name || "no layer: loss, optimizer, data";
    this.variants.forEach((ids, row) => {
      const name = this.layerOf[ids[0]];
      if (!found.has(name)) found.set(name, { layer: name, rows: [] });
      found.get(name).rows.push(row);
    });
    // as the model calls its layers: a node that comes early (random bits, a constant) tells little of its layer's place
    const place = new Map(this.layers.map((name, k) => [name, k])), known = new Map();
    [...found.keys()].forEach((name, k) => {
      let outer = name;
      while (outer && !place.has(outer)) outer = outer.slice(0, Math.max(0, outer.lastIndexOf("/")));
      known.set(name, [outer ? place.get(outer) : this.layers.length, k]);
    });
    const order = (a, b) => known.get(a.layer)[0] - known.get(b.layer)[0] || known.get(a.layer)[1] - known.get(b.layer)[1];
    return [...found.values()].sort((a, b) => (a.layer === REST) - (b.layer === REST) || order(a, b));
  }

  /** How many rows a stage has that an earlier one has not, has not any more, and has with other inputs. */
  change(before, after) {
    const found = { born: 0, gone: 0, other: 0 };
    for (let row = 0; row < this.rows; row++) {
      const a = this.at[before][row], b = this.at[after][row];
      if (a < 0 && b >= 0) found.born++;
      else if (a >= 0 && b < 0) found.gone++;
      else if (a >= 0 && this.rewired(a, b)) found.other++;
    }
    return found;
  }

  /** Whether two nodes of one row read other rows. */
  rewired(a, b) {
    if (a === b) return false;
    const x = this.nodes[a][INPUTS], y = this.nodes[b][INPUTS];
    return x.length !== y.length || x.some((id, k) => this.rowOf[id] !== this.rowOf[y[k]]);
  }

  /** A node of a row: the one of the last stage that has it. */
  latest(row) { return this.variants[row].at(-1); }

  /** Whether a node is the same whatever is computed: made of numbers and sizes alone. */
  constant(id) {
    this.constants ??= new Map();
    const stack = [id];
    while (stack.length) {
      const at = stack.at(-1), node = this.nodes[at];
      const waiting = node[INPUTS].filter(x => !this.constants.has(x));
      if (waiting.length) { stack.push(...waiting); continue; }
      const leaf = !node[INPUTS].length;
      this.constants.set(at, leaf ? !/^(Input|Parameter)$/.test(this.ops[node[OP]][0]) : node[INPUTS].every(x => this.constants.get(x)));
      stack.pop();
    }
    return this.constants.get(id);
  }

  flopsOf(rows) {
    const last = this.at.at(-1);
    return rows.reduce((s, row) => s + (last[row] < 0 ? 0 : this.value(this.nodes[last[row]][FLOPS])), 0);
  }

  value(formula) { return formula < 0 ? 0 : evaluate(this.formulas[formula][1], this.size); }
  spelled(formula) { return formula < 0 ? "" : this.formulas[formula][0]; }
  label(id) { return this.ops[this.nodes[id][OP]][1]; }
  type(id) { return this.types[this.nodes[id][TYPE]]; }
  line(id) {
    const inputs = this.nodes[id][INPUTS];
    const label = inputs.length ? this.label(id).replace(/\(\)$/, "") : this.label(id);
    return label + (inputs.length ? `(${inputs.map(x => `%${this.rowOf[x]}`).join(", ")})` : "");
  }
  kernelsOf(id) { return this.made[id] ?? this.melted[id] ?? []; }
  place(origin) { const [, file, line] = this.origins[origin]; return file ? `${file}:${line}` : ""; }

  async text(kernel) {
    const number = this.texts[kernel < 0 ? this.texts.length - 1 : kernel];
    if (!this.unpacked.has(number)) this.unpacked.set(number, unpack(number));
    return this.unpacked.get(number);
  }
}
