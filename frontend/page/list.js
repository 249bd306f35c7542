// A list of any length: only the rows in sight exist.

class List {
  /** `render(k)` gives the element of row k; all are `height` pixels high. */
  constructor(host, height, render, head = null) {
    Object.assign(this, { height, render, count: 0 });
    this.body = make("div", { className: "body" });
    this.top = head ? 30 : 0;
    this.outer = make("div", { className: "list", tabIndex: 0 }, head, this.body);
    this.outer.style.setProperty("--row", `${height}px`);
    this.outer.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.soon()).observe(this.outer);
    host.append(this.outer);
  }

  reset(count) {
    this.count = count;
    this.body.style.height = `${count * this.height}px`;
    this.draw();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const above = Math.max(0, this.outer.scrollTop - this.top), reach = this.outer.clientHeight || 800;
    const first = Math.max(0, Math.floor(above / this.height) - 8);
    const last = Math.min(this.count, Math.ceil((above + reach) / this.height) + 8);
    const rows = [];
    for (let k = first; k < last; k++) {
      const row = this.render(k);
      row.style.top = `${k * this.height}px`;
      row.style.height = row.style.lineHeight = `${this.height}px`;
      rows.push(row);
    }
    this.body.replaceChildren(...rows);
  }

  /** Bring row k into sight, in the middle unless it is there already. */
  show(k) {
    const above = k * this.height + this.top, view = this.outer;
    if (above < view.scrollTop + this.top || above + this.height > view.scrollTop + view.clientHeight) {
      view.scrollTop = Math.max(0, above - view.clientHeight / 2);
    }
    this.draw();
  }
}
