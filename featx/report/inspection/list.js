"use strict";
// A list of images, pairs or groups, of which only what is in view is in the document.

/**
 * A list of items of one height in columns, which scrolls with the window.
 * `make(item, place)` returns {element, update}: the content of an item, and what brings it up to date after a decision.
 */
class VirtualList {
  constructor(make, { label, minWidth, height, keys = () => false }) {
    Object.assign(this, { make, minWidth, height, keys, items: [], shown: new Map(), columns: 1, active: 0 });
    this.element = node("ul", {
      class: "virtual",
      role: "list",
      "aria-label": label,
      onkeydown: (event) => this.#onKey(event),
      onfocusin: (event) => this.#onFocus(event),
    });
    new ResizeObserver(() => this.layout()).observe(this.element);
    addEventListener("scroll", () => this.#soon(), { passive: true });
  }

  setItems(items, { keepPlace = false } = {}) {
    this.items = items;
    this.#clear();
    this.active = keepPlace ? Math.min(this.active, Math.max(items.length - 1, 0)) : 0;
    this.layout();
  }

  update() {
    for (const { update } of this.shown.values()) update();
  }

  layout() {
    const width = this.element.clientWidth;
    if (!width) return;
    const unit = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16; // sizes follow the user's font size
    const gap = 12,
      minWidth = Math.min(unit * this.minWidth(width / unit), width);
    const columns = Math.max(1, Math.floor((width + gap) / (minWidth + gap)));
    const itemWidth = Math.floor((width - gap * (columns - 1)) / columns),
      itemHeight = Math.ceil(unit * this.height(itemWidth / unit));
    Object.assign(this, { columns, gap, itemWidth, itemHeight });
    const lines = Math.ceil(this.items.length / columns);
    this.element.style.height = `${Math.max(0, lines * (itemHeight + gap) - gap)}px`;
    for (const [place, { element }] of this.shown) this.#place(element, place);
    this.#render();
  }

  /** Bring an item into view and focus it. */
  focus(place) {
    if (!this.items.length) return;
    this.active = Math.max(0, Math.min(place, this.items.length - 1));
    const box = this.element.getBoundingClientRect(),
      top = box.top + Math.floor(this.active / this.columns) * (this.itemHeight + this.gap);
    const above = find(".bar-top").getBoundingClientRect().bottom + 8;
    if (top < above) scrollBy(0, top - above);
    else if (top + this.itemHeight > innerHeight)
      scrollBy(0, Math.min(top + this.itemHeight - innerHeight + 8, top - above));
    this.#render();
    find(".open", this.shown.get(this.active)?.element)?.focus({ preventScroll: true });
  }

  #soon() {
    if (!this.waiting)
      this.waiting = requestAnimationFrame(() => {
        this.waiting = 0;
        this.#render();
      });
  }

  #render() {
    if (!this.element.clientWidth || !this.itemHeight) return;
    const top = this.element.getBoundingClientRect().top,
      step = this.itemHeight + this.gap;
    const from = Math.max(0, Math.floor((-top - 300) / step)) * this.columns;
    const to = Math.min(this.items.length, (Math.ceil((innerHeight - top + 300) / step) + 1) * this.columns);
    for (const [place, { element }] of this.shown) {
      if ((place < from || place >= to) && !element.contains(document.activeElement)) {
        element.remove();
        this.shown.delete(place);
      }
    }
    for (let place = from; place < to; place++) if (!this.shown.has(place)) this.#add(place);
    if (!this.shown.has(this.active) && this.shown.size) this.active = from;
    for (const [place, { element }] of this.shown)
      find(".open", element)?.setAttribute("tabindex", place === this.active ? "0" : "-1");
  }

  #add(place) {
    const made = this.make(this.items[place], place);
    const element = node("li", { "aria-setsize": this.items.length, "aria-posinset": place + 1 }, made.element);
    element.dataset.place = place;
    this.#place(element, place);
    made.update();
    // In order, so that the Tab key and screen readers meet the items as the eye does.
    const next = [...this.element.children].find((other) => Number(other.dataset.place) > place) ?? null;
    this.element.insertBefore(element, next);
    this.shown.set(place, { element, update: made.update });
  }

  #place(element, place) {
    const column = place % this.columns,
      line = Math.floor(place / this.columns);
    element.style.width = `${this.itemWidth}px`;
    element.style.height = `${this.itemHeight}px`;
    element.style.transform = `translate(${column * (this.itemWidth + this.gap)}px, ${line * (this.itemHeight + this.gap)}px)`;
  }

  #clear() {
    this.element.replaceChildren();
    this.shown.clear();
  }

  #onFocus(event) {
    const item = event.target.closest("li");
    if (item?.parentElement === this.element) this.active = Number(item.dataset.place);
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName))
      return;
    const place = Number(event.target.closest("li")?.dataset.place ?? -1);
    if (place < 0) return;
    const steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.columns,
      ArrowDown: this.columns,
      Home: -place,
      End: this.items.length - 1 - place,
    };
    if (event.key in steps) {
      const target = place + steps[event.key];
      if (target >= 0 && target < this.items.length) this.focus(target);
    } else if (this.keys(this.items[place], event.key)) {
      if (place + 1 < this.items.length) this.focus(place + 1);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
