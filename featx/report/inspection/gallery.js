"use strict";
// A gallery: filters, a count, buttons for all that is listed, and a list. Sizes and keys of its items.

/**
 * A gallery. `items` are all its items; `rowsOf(item)` are the rows that filters look at; `extra` are further filters, elements
 * with a method `passes(item)`; `bySplit` is whether there is a filter for the split.
 */
class Gallery {
  constructor({
    items,
    rowsOf,
    make,
    label,
    minWidth,
    height,
    status,
    keys,
    extra = [],
    bulk = [],
    bySplit = true,
    sorts = null,
    empty = "Nothing was found.",
  }) {
    Object.assign(this, { all: items, rowsOf, status, extra, sorts, empty });
    this.list = new VirtualList(make, { label, minWidth, height, keys });
    const changed = () => this.filter();
    this.text = node("input", {
      type: "search",
      placeholder: "Search paths",
      "aria-label": "Search paths",
      oninput: changed,
      spellcheck: "false",
    });
    this.label = options("Label", ["all labels", ...LABEL_NAMES], changed);
    this.split = options("Split", ["all splits", ...DATA.splitNames.map(SPLIT_TEXT)], changed);
    this.state = options("State", ["all states", "undecided", "accepted", "rejected"], changed);
    this.order = sorts ? options("Order", Object.keys(sorts), changed) : null;
    this.count = node("span", { class: "count", role: "status" });
    this.bulk = bulk.map(({ text, changes }) =>
      action(text, () => decide(this.list.items.flatMap(changes)), {
        title: "For everything that is listed here. One undo takes it back.",
      }),
    );
    this.bar = node(
      "div",
      { class: "filters" },
      this.text,
      LABEL_NAMES.length > 1 && !IS_REGRESSION ? this.label : null,
      bySplit && DATA.splitNames.length > 1 ? this.split : null,
      status ? this.state : null,
      this.order,
      extra,
      this.count,
      node("span", { class: "bulk" }, this.bulk),
    );
    this.bar.hidden = Boolean(status) && !items.length && !extra.length; // there is nothing to filter
    this.nothing = node("p", { class: "empty" });
    this.element = node("div", { class: "gallery-panel" }, this.bar, this.nothing, this.list.element);
    this.filter();
  }

  setItems(items) {
    this.all = items;
    this.filter();
  }

  /** Show the items that pass all filters. */
  filter(keepPlace = false) {
    const text = this.text.value.trim().toLowerCase(),
      label = LABEL_NAMES[this.label.selectedIndex - 1],
      split = this.split.selectedIndex - 1;
    const state = { undecided: "", accepted: "accepted", rejected: "rejected" }[this.state.value];
    const passes = (row) =>
      (!text || DATA.paths[row].toLowerCase().includes(text)) &&
      (label === undefined || hasLabel(givenLabel(row), label) || hasLabel(newLabel(row), label)) &&
      (split < 0 || DATA.splits[row] === split);
    const found = this.all.filter(
      (item) =>
        this.rowsOf(item).some(passes) &&
        (state === undefined || this.status(item) === state) &&
        this.extra.every((filter) => filter.passes?.(item) ?? true),
    );
    if (this.order) found.sort(this.sorts[this.order.value]);
    this.list.setItems(found, { keepPlace });
    this.#tell();
  }

  update() {
    this.list.update();
    this.#tell();
  }

  #tell() {
    const shown = this.list.items,
      decided = this.status ? shown.filter((item) => this.status(item)).length : 0;
    this.count.textContent = `${shown.length === this.all.length ? "" : `${shown.length.toLocaleString("en")} of `}${this.all.length.toLocaleString("en")}${this.status ? ` · ${decided.toLocaleString("en")} decided` : ""}`;
    this.nothing.textContent = shown.length ? "" : this.all.length ? "No image passes these filters." : this.empty;
    for (const each of this.bulk) each.disabled = !shown.length;
  }
}

/** A select of some texts. */
const options = (label, texts, onchange) =>
  node(
    "select",
    { "aria-label": label, onchange },
    texts.map((text) => node("option", { value: text }, printable(text))),
  );

// Sizes of items: a list's width or an item's width to pixels.
const cardSize = (actions) => ({
  minWidth: (width) => (width < 420 ? (width - 12) / 2 : width > 1800 ? 200 : 160),
  height: (width) => width + (actions ? 108 : 70),
});
const wideSize = {
  minWidth: (width) => (width > 1400 ? 680 : width),
  height: (width) => (width < 400 ? 404 : width < 1080 ? 350 : IS_MULTILABEL ? 196 : 172),
};
const pairSize = {
  minWidth: (width) => Math.min(width, width > 2400 ? 420 : 340),
  height: (width) => (width - 32) / 2 + 158,
};
const GROUP_WIDTH = (() => {
  // room for nine of ten groups; the others are scrolled
  const sizes = DATA.duplicates.groups.map((rows) => rows.length).sort((a, b) => a - b);
  return Math.min(Math.max(138 * (sizes[Math.floor(sizes.length * 0.9)] ?? 2) + 20, 330), 860);
})();
const groupSize = { minWidth: () => GROUP_WIDTH, height: (width) => (width < 300 ? 330 : 292) }; // its buttons may wrap

/** The keys of a list of images: a digit gives a label, and the letters of `more` decide. */
function imageKeys(row, key, more = {}) {
  if (key in more) decide(more[key](row));
  else if (/^[1-9]$/.test(key) && !IS_MULTILABEL && !IS_REGRESSION && Number(key) <= LABEL_NAMES.length)
    decide(relabel(row, LABEL_NAMES[Number(key) - 1]));
  else if (key === "d") decide(drop(row, !isDropped(row)));
  else return false;
  return true;
}
