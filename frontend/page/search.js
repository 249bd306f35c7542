// Search: every word must be somewhere in what is known of a node, a step or a kernel.

class Search {
  constructor(work) {
    this.work = work;
    this.words = [];
    this.texts = {};
  }

  set(query) { this.words = query.toLowerCase().split(/\s+/).filter(Boolean); }
  get active() { return this.words.length > 0; }

  node(id) {
    const { work } = this;
    return this._match("n" + id, () => [
      `%${work.rowOf[id]}`, work.line(id), work.type(id),
      ...work.nodes[id][ORIGINS].map(o => `${work.origins[o][0]} ${work.place(o)} ${work.origins[o][3]}`),
      ...work.kernelsOf(id).map(k => work.kernels[k].join(" ")),
    ]);
  }

  /** Whether any node of a row is found. */
  row(row) { return !this.active || this.work.variants[row].some(id => this.node(id)); }

  step(k) {
    const step = this.work.steps[k];
    const label = step[STEP.kernel] >= 0 ? this.work.kernels[step[STEP.kernel]][1] : "";
    return this._match("s" + k, () => [step[STEP.text], label, ...step[STEP.layers]]);
  }

  kernel(k) {
    const layers = () => this.work.stepsOf[k].flatMap(s => this.work.steps[s][STEP.layers]);
    return this._match("k" + k, () => [...this.work.kernels[k], ...layers()]);
  }

  _match(key, parts) {
    if (!this.active) return true;
    const text = (this.texts[key] ??= parts().join("\n").toLowerCase());
    return this.words.every(word => text.includes(word));
  }

  /** `text` as nodes of the document, what was searched for marked. */
  marked(text) {
    if (!this.active) return [text];
    const low = text.toLowerCase(), parts = [];
    let from = 0;
    for (;;) {
      let at = -1, length = 0;
      for (const word of this.words) {
        const k = low.indexOf(word, from);
        if (k >= 0 && (at < 0 || k < at)) { at = k; length = word.length; }
      }
      if (at < 0) break;
      parts.push(text.slice(from, at), make("mark", {}, text.slice(at, at + length)));
      from = at + length;
    }
    return [...parts, text.slice(from)];
  }
}
