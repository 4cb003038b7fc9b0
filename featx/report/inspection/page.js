"use strict";
// The parts of the page: tabs, overview, galleries, the confusion matrix, the list of decisions, and the keys of the page.

const panels = []; // {id, title, count, element, update, shown}

/** A part of the page. `build()` is called when it is first shown and returns {element, update}. */
function panel(id, title, count, build) {
  panels.push({ id, title, count, build, element: null, update: () => {} });
}

// ---- Galleries

const FIRST = (row) => [row];
const byDescending = (valueOf) => (a, b) => (valueOf(b) ?? -Infinity) - (valueOf(a) ?? -Infinity) || a - b;

function galleryPanel(id, title, intro, settings) {
  panel(id, title, settings.count ?? settings.items.length, () => {
    const gallery = new Gallery({ label: title, ...settings, make: (item) => settings.make(item, gallery) });
    return { element: node("div", {}, intro ? node("p", { class: "intro" }, intro) : null, gallery.element), update: () => gallery.update(), gallery };
  });
}

function addGalleries() {
  const groups = DATA.duplicates.groups.map((_, group) => group), { leaks } = DATA;
  galleryPanel("duplicates", "Duplicates", `Images that are the same file, or nearer to each other than ${decimal(DATA.duplicates.threshold)} (cosine distance).`, {
    items: groups, rowsOf: (group) => DATA.duplicates.groups[group], make: groupCard, ...groupSize, status: statusOf.duplicates,
    keys: (group, key) => { const changes = { a: keepOne, g: keepTogether, r: notDuplicates }[key]?.(group); if (changes) decide(changes); return Boolean(changes); },
    bulk: [{ text: "Keep one of each", changes: (group) => keepOne(group) }, { text: "Group all", changes: (group) => (decisions.has(`group:${group}`) ? [] : keepTogether(group)) }],
    empty: "There are no duplicates.",
  });
  if (DATA.splitNames.length > 1) {
    galleryPanel("leaks", "Leaks", `Duplicates in different splits. A head has seen such a held-out image in training, so its accuracy is too good.${more(leaks.across, leaks.acrossCount)}`, {
      items: leaks.across, rowsOf: ([a, b]) => [a, b], make: (pair) => pairCard(pair, { buttons: leakButtons(pair), status: () => statusOf.leak(pair) }), ...pairSize, status: statusOf.leak,
      keys: (pair, key) => pressed(leakButtons(pair), { a: 0, d: 1, t: 2, r: 3 }[key]),
      bulk: [{ text: "Move all to the earlier split", changes: ([a, b]) => moveTo(b, givenSplit(a)) }], empty: "There are no duplicates across splits.",
    });
  }
  if (LABEL_NAMES.length) {
    galleryPanel("conflicts", "Conflicts", `Duplicates with different labels: at least one of the two is wrong.${more(leaks.conflicts, leaks.conflictCount)}`, {
      items: leaks.conflicts, rowsOf: ([a, b]) => [a, b], make: (pair) => pairCard(pair, { buttons: conflictButtons(pair), status: () => statusOf.conflict(pair), note: predictedOf(pair) }), ...pairSize, status: statusOf.conflict,
      keys: (pair, key) => pressed(conflictButtons(pair), { a: 0, 1: 0, 2: 1, d: 2, r: 3 }[key]), empty: "There are no duplicates with different labels.",
    });
  }
  if (ISSUES) addLabelGalleries();
  galleryPanel("outliers", "Outliers", DATA.outliers.threshold === null ? "" : `Images whose mean distance to their nearest images is above ${decimal(DATA.outliers.threshold)}, the furthest first.`, {
    items: DATA.outliers.ranked, rowsOf: FIRST, ...cardSize(true), status: statusOf.outlier,
    make: (row, { list }) => imageCard(row, { rows: list.items, fact: () => `distance ${decimal(DATA.outliers.distances[row])}`, buttons: dropButtons(row, "outlier"), status: () => statusOf.outlier(row) }),
    keys: (row, key) => imageKeys(row, key, { a: (it) => acceptDrop(it, "outlier"), r: (it) => rejection("outlier", it) }), empty: "There are no outliers.",
  });
  if (DATA.pixels) addOddGallery();
  galleryPanel("images", "Images", "", {
    items: ALL_ROWS, rowsOf: FIRST, ...cardSize(false), make: (row, { list }) => imageCard(row, { rows: list.items, fact: () => problemsOf(row).join(", ") }), keys: imageKeys,
    sorts: { "by path": (a, b) => a - b, ...(ISSUES && !IS_REGRESSION ? { "least confident first": (a, b) => (confidence(a) ?? 2) - (confidence(b) ?? 2) || a - b } : {}), "by label": (a, b) => (newLabel(a) < newLabel(b) ? -1 : newLabel(a) > newLabel(b) ? 1 : a - b), "furthest first": byDescending((row) => DATA.outliers.distances[row]) },
  });
}

const more = (shown, count) => (count > shown.length ? ` The closest ${shown.length.toLocaleString("en")} of ${count.toLocaleString("en")} pairs.` : "");
const predictedOf = (pair) => [...new Set(pair.map(suggestedLabel).filter(Boolean))].map((label) => `predicted ${printable(label)}`).join(", ");

function pressed(buttons, place) {
  if (place === undefined) return false;
  buttons[place].element.click();
  return true;
}

function addLabelGalleries() {
  const flagged = options("Found by", ["all suggestions", "found by confident learning"], () => parts.labels?.gallery.filter());
  flagged.passes = (row) => flagged.selectedIndex === 0 || Boolean(IS_LABEL_ISSUE[row]);
  const expected = `About ${counted(ISSUES.expected, "label is", "labels are")} expected to be wrong. The most suspicious come first; each image was predicted by a head that was fitted without it.`;
  galleryPanel("labels", "Label errors", expected, {
    items: ISSUES.ranked, count: ISSUES.issues.length, rowsOf: FIRST, make: (row, { list }) => labelCard(row, { rows: list.items }), ...wideSize, status: statusOf.label, extra: [flagged],
    keys: (row, key) => imageKeys(row, key, { a: (it) => relabel(it, suggestedLabel(it)), r: (it) => rejection("label", it) }),
    bulk: [{ text: "Accept all listed", changes: (row) => relabel(row, suggestedLabel(row)) }], empty: "Every label is the one that the head predicts.",
  });
  if (IS_REGRESSION) return;
  const wrong = ALL_ROWS.filter(isMistake).sort(byDescending(confidence));
  const matrix = DATA.task === "classification" ? confusionMatrix(() => parts.mistakes?.gallery) : null;
  panel("mistakes", "Mistakes", wrong.length, () => {
    const gallery = new Gallery({
      items: wrong, rowsOf: FIRST, label: "Mistakes", ...cardSize(true), status: statusOf.label, extra: matrix ? [matrix.chip] : [], empty: "No image is misclassified.",
      make: (row) => imageCard(row, { rows: gallery.list.items, fact: () => node("span", {}, "predicted ", foreign(suggestedLabel(row)), confidence(row) === null ? "" : ` ${percent(confidence(row))}`), status: () => statusOf.label(row),
        buttons: isMistake(row) ? [button(["To ", foreign(suggestedLabel(row))], () => decide(isRelabelled(row) && newLabel(row) === suggestedLabel(row) ? [[`label:${row}`, undefined]] : relabel(row, suggestedLabel(row))), () => isRelabelled(row) && newLabel(row) === suggestedLabel(row), { kind: "accept", key: "a", title: "Change the label to the prediction" }),
          button("Keep", () => decide(rejection("label", row)), () => decisions.has(`keep:label:${row}`), { kind: "good", key: "r", title: "The label is right" })] : [] }),
      keys: (row, key) => imageKeys(row, key, { a: (it) => relabel(it, suggestedLabel(it)), r: (it) => rejection("label", it) }),
    });
    const intro = node("p", { class: "intro" }, "Predictions that differ from the label, the most confident first.");
    return { element: node("div", {}, intro, matrix?.element, gallery.element), update: () => gallery.update(), gallery };
  });
}

function addOddGallery() {
  const kinds = Object.keys(DATA.pixels.kinds).filter((kind) => DATA.pixels.kinds[kind].length);
  const kind = options("Kind", ["all kinds", ...kinds.map((name) => `${oddName(name)} (${DATA.pixels.kinds[name].length.toLocaleString("en")})`)], () => parts.odd?.gallery.filter());
  kind.passes = (row) => kind.selectedIndex === 0 || ODD_KINDS[row].includes(kinds[kind.selectedIndex - 1]);
  const unread = DATA.pixels.unread ? ` ${counted(DATA.pixels.unread, "image")} could not be read.` : "";
  galleryPanel("odd", "Odd images", `Blank, very dark or bright, blurred, or of an odd size or shape.${unread}`, {
    items: [...new Set(kinds.flatMap((name) => DATA.pixels.kinds[name]))], rowsOf: FIRST, ...cardSize(true), status: statusOf.odd, extra: kinds.length > 1 ? [kind] : [],
    make: (row, { list }) => imageCard(row, { rows: list.items, fact: () => [...ODD_KINDS[row].map(oddName), sizeOf(row)?.join(" × ")].filter(Boolean).join(" · "), buttons: dropButtons(row, "odd"), status: () => statusOf.odd(row) }),
    keys: (row, key) => imageKeys(row, key, { a: (it) => acceptDrop(it, "odd"), r: (it) => rejection("odd", it) }), empty: "No image is odd.",
  });
}

// ---- The confusion matrix

const MOST_CLASSES_OF_MATRIX = 40;

/** A table of true and predicted classes whose cells filter the gallery: {element, chip}. */
function confusionMatrix(galleryOf) {
  const counts = new Map(), judged = ALL_ROWS.filter((row) => suggestedLabel(row) !== "");
  const key = (row) => JSON.stringify([givenLabel(row), suggestedLabel(row)]);
  for (const row of judged) counts.set(key(row), (counts.get(key(row)) ?? 0) + 1);
  const chip = node("span", { class: "filter-chip", hidden: true });
  let chosen = null, pressedCell = null;
  chip.passes = (row) => !chosen || (givenLabel(row) === chosen[0] && suggestedLabel(row) === chosen[1]);
  const wrong = ALL_ROWS.filter(isMistake).sort(byDescending(confidence));
  const choose = (pair, cell) => {
    if (pressedCell) press(pressedCell, false);
    const again = cell === pressedCell;
    chosen = again ? null : pair;
    pressedCell = again ? null : cell;
    if (pressedCell) press(pressedCell, true);
    chip.hidden = !chosen;
    chip.replaceChildren(...(chosen ? [foreign(chosen[0]), " predicted as ", foreign(chosen[1]), node("button", { type: "button", "aria-label": "Remove this filter", onclick: () => choose(null, pressedCell) }, "×")] : []));
    // The diagonal shows what is right.
    galleryOf()?.setItems(chosen && chosen[0] === chosen[1] ? judged.filter(chip.passes).sort(byDescending(confidence)) : wrong);
  };
  const cellButton = (count, pair) => node("button", { type: "button", "aria-pressed": "false", "aria-label": `${counted(count, "image")} of ${printable(pair[0])} predicted as ${printable(pair[1])}`, onclick: (event) => choose(pair, event.currentTarget) }, count.toLocaleString("en"));
  const names = LABEL_NAMES, content = names.length <= MOST_CLASSES_OF_MATRIX ? squareMatrix(names, counts, cellButton) : listOfConfusions(counts, cellButton);
  return { element: node("details", { class: "matrix", open: true }, node("summary", {}, "Confusion matrix: a cell shows its images"), node("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Confusion matrix" }, content)), chip };
}

function squareMatrix(names, counts, cellButton) {
  const of = (a, b) => counts.get(JSON.stringify([a, b])) ?? 0;
  const sums = new Map(names.map((name) => [name, names.reduce((sum, other) => sum + of(name, other), 0)]));
  const cell = (a, b) => {
    const count = of(a, b), element = node("td", { class: a === b ? "right" : "" }, count ? cellButton(count, [a, b]) : node("span", { class: "zero" }, "0"));
    element.style.setProperty("--share", sums.get(a) ? (count / sums.get(a)).toFixed(3) : "0");
    return element;
  };
  return node("table", {}, node("thead", {}, node("tr", {}, node("td", { class: "corner" }, "label \\ predicted"), names.map((name) => node("th", { scope: "col", title: printable(name) }, node("span", {}, foreign(name)))))), node("tbody", {}, names.map((a) => node("tr", {}, node("th", { scope: "row", title: printable(a) }, foreign(a)), names.map((b) => cell(a, b))))));
}

function listOfConfusions(counts, cellButton) {
  const pairs = [...counts].map(([text, count]) => [JSON.parse(text), count]).filter(([[a, b]]) => a !== b).sort((x, y) => y[1] - x[1]).slice(0, 100);
  return node("table", {}, node("thead", {}, node("tr", {}, ["label", "predicted", "images"].map((name) => node("th", { scope: "col" }, name)))), node("tbody", {}, pairs.map(([pair, count]) => node("tr", {}, node("td", {}, foreign(pair[0])), node("td", {}, foreign(pair[1])), node("td", {}, cellButton(count, pair))))));
}

// ---- The map

let map = null;

function addMap() {
  if (!DATA.map) return;
  panel("map", "Map", null, () => {
    const gallery = new Gallery({ items: [], rowsOf: FIRST, label: "Selection", ...cardSize(false), make: (row) => imageCard(row, { rows: gallery.list.items, fact: () => problemsOf(row).join(", ") }), keys: imageKeys });
    const count = node("b", {}), select = groupSelect(() => map.selection);
    const selected = node("section", { class: "selection", hidden: true, "aria-label": "Selection" },
      node("div", { class: "head" }, count, node("div", { class: "actions" },
        action("Save selection as CSV", () => exportRows(map.selection, "selection")), select,
        action("Drop these", () => decide(map.selection.flatMap((row) => drop(row))), { kind: "bad" }), action("Clear", () => map.selectRows([])))),
      gallery.element);
    map = new ImageMap(DATA.map.points, DATA.map.name, (rows) => {
      count.textContent = `${counted(rows.length, "image")} selected`;
      selected.hidden = !rows.length;
      hint.hidden = Boolean(rows.length);
      gallery.setItems(rows);
    });
    const hint = node("p", { class: "intro hint" }, `${DATA.map.name} of the features. Drag to move, scroll or pinch to zoom; select with the lasso, or with Shift and a rectangle.`);
    return { element: node("div", {}, map.element, hint, selected), update: () => { if (["label", "split", "decision"].includes(map.colourBy)) map.recolour(); gallery.update(); }, gallery };
  });
}

/** A select that gives all selected rows one label. */
function groupSelect(rowsOf) {
  if (!LABEL_NAMES.length || IS_MULTILABEL || IS_REGRESSION) return null;
  const select = node("select", { "aria-label": "Label all selected images", onchange: () => {
    const label = LABEL_NAMES[select.selectedIndex - 1];
    if (label !== undefined) decide(rowsOf().flatMap((row) => relabel(row, label)));
    select.selectedIndex = 0;
  } }, node("option", {}, "Label all as …"), LABEL_NAMES.map((name) => node("option", {}, printable(name))));
  return select;
}

// ---- The overview

function addOverview() {
  const about = find("#about");
  about.remove();
  panel("overview", "Overview", null, () => {
    const table = node("tbody"), kinds = problemKinds();
    const element = node("div", { class: "overview" },
      node("section", {}, node("h2", {}, "What was found"), node("div", { class: "scroll" }, node("table", { class: "found" }, node("thead", {}, node("tr", {}, ["problem", "found", "decided", ""].map((name, i) => node("th", { scope: "col", class: i === 1 || i === 2 ? "n" : null }, name)))), table))),
      leakSection(), about, classSection());
    const update = () => table.replaceChildren(...kinds.map(([id, name, items, status, what]) => node("tr", {},
      node("th", { scope: "row" }, items.length ? node("button", { type: "button", class: "link", onclick: () => showPanel(id, { focus: true }) }, name) : name),
      node("td", { class: "n" }, items.length.toLocaleString("en")), node("td", { class: "n" }, items.length ? items.filter((item) => status(item)).length.toLocaleString("en") : ""), node("td", { class: "what" }, what))));
    update();
    return { element, update };
  });
}

/** [part of the page, name, suggestions, status of one, what it means] of each kind of problem. */
function problemKinds() {
  const { leaks } = DATA, kinds = [["duplicates", "Groups of duplicates", DATA.duplicates.groups.map((_, group) => group), statusOf.duplicates, `${counted(DATA.duplicates.groups.flat().length, "image")} in all`]];
  if (DATA.splitNames.length > 1) kinds.push(["leaks", "Leaks across splits", leaks.across, statusOf.leak, leaks.heldOut ? `${counted(leaks.leaked.length, `image of ${leaks.heldOut} has`, `images of ${leaks.heldOut} have`)} a duplicate in the training images` : ""]);
  if (LABEL_NAMES.length) kinds.push(["conflicts", "Duplicates with different labels", leaks.conflicts, statusOf.conflict, "at least one label of each pair is wrong"]);
  if (ISSUES) kinds.push(["labels", "Labels that are probably wrong", ISSUES.issues, statusOf.label, `found by confident learning; about ${ISSUES.expected.toLocaleString("en")} expected, ${counted(ISSUES.ranked.length, "suggestion")} ranked`]);
  kinds.push(["outliers", "Outliers", DATA.outliers.ranked, statusOf.outlier, "far from all other images"]);
  if (DATA.pixels) {
    const found = Object.entries(DATA.pixels.kinds).filter(([, rows]) => rows.length);
    kinds.push(["odd", "Odd images", [...new Set(found.flatMap(([, rows]) => rows))], statusOf.odd, found.map(([kind, rows]) => `${rows.length.toLocaleString("en")} ${oddName(kind)}`).join(", ") || "blank, dark, bright, blurred, or of an odd size or shape"]);
  }
  return kinds;
}

function leakSection() {
  const { leaks } = DATA;
  if (!leaks.with && !leaks.without) return null;
  const row = (name, text) => (text ? node("tr", {}, node("th", { scope: "row" }, name), node("td", {}, printable(text))) : null);
  return node("section", {}, node("h2", {}, "What the leaks are worth"), node("p", {}, `The same head, judged on split ${printable(leaks.heldOut)} with and without the images that have a duplicate among the training images.`), node("div", { class: "scroll" }, node("table", {}, node("tbody", {}, row("with them", leaks.with), row("without them", leaks.without)))));
}

/** The classes with their images in each split, and their problems. */
function classSection() {
  if (IS_REGRESSION || !LABEL_NAMES.length) return null;
  const splits = DATA.splitNames, problems = ISSUES ? asMask(ISSUES.issues) : new Uint8Array(N);
  const places = new Map(LABEL_NAMES.map((name, i) => [name, i])), table = LABEL_NAMES.map(() => ({ splits: splits.map(() => 0), wrong: 0, missed: 0 }));
  for (let row = 0; row < N; row++) {
    const label = givenLabel(row);
    for (const name of IS_MULTILABEL ? label.split(BETWEEN_LABELS) : [label]) {
      const counts = table[places.get(name)];
      if (!counts) continue;
      counts.splits[DATA.splits[row]] += 1;
      counts.wrong += problems[row];
      counts.missed += isMistake(row) ? 1 : 0;
    }
  }
  const number = (value) => node("td", { class: "n" }, value.toLocaleString("en"));
  const link = (name) => node("button", { type: "button", class: "link", onclick: () => { showPanel("images", { focus: true }); parts.images.gallery.label.selectedIndex = 1 + places.get(name); parts.images.gallery.filter(); } }, foreign(name));
  const header = [IS_MULTILABEL ? "label" : "class", ...splits.map(SPLIT_TEXT), ...(ISSUES ? ["label errors", "mistakes"] : [])];
  const rows = LABEL_NAMES.map((name, i) => node("tr", {}, node("th", { scope: "row" }, link(name)), table[i].splits.map(number), ISSUES ? [number(table[i].wrong), number(table[i].missed)] : null));
  const content = node("div", { class: "scroll" }, node("table", {}, node("thead", {}, node("tr", {}, header.map((name, i) => node("th", { scope: "col", class: i ? "n" : null }, printable(name))))), node("tbody", {}, rows)));
  const title = IS_MULTILABEL ? "Labels" : "Classes";
  return node("section", {}, node("h2", {}, title), LABEL_NAMES.length > 30 ? node("details", {}, node("summary", {}, counted(LABEL_NAMES.length, "class", "classes")), content) : content);
}

// ---- The decisions

const KEY_TEXT = {
  label: (row, label) => ["label ", foreign(givenLabel(row) || "unlabelled"), " → ", label === "" ? "unlabelled" : foreign(label)],
  drop: () => ["dropped"],
  split: (row, split) => ["split ", foreign(SPLIT_TEXT(givenSplit(row))), " → ", foreign(split)],
  group: (group) => [`kept together: ${counted(DATA.duplicates.groups[group].length, "duplicate")}`],
};

function addDecisions() {
  panel("decisions", "Decisions", null, () => {
    const what = (key) => key.split(":")[0], target = (key) => Number(key.split(":")[1]);
    const entries = () => [...decisions].filter(([key]) => what(key) in KEY_TEXT && (what(key) === "group" ? target(key) < DATA.duplicates.groups.length : target(key) < N)).reverse();
    const list = new VirtualList(([key, value]) => {
      const row = what(key) === "group" ? DATA.duplicates.groups[target(key)][0] : target(key), rows = what(key) === "group" ? DATA.duplicates.groups[target(key)] : [row];
      const element = node("article", { class: "card entry" }, opener(row, rows), node("div", { class: "text" }, node("div", {}, KEY_TEXT[what(key)](target(key), value)), node("div", { class: "name", title: printable(DATA.paths[row]) }, foreign(DATA.paths[row]))), action("Take back", () => decide([[key, undefined]])));
      return { element, update: () => {} };
    }, { label: "Decisions", minWidth: (width) => (width > 1100 ? 520 : width), height: () => 76 });
    const summary = node("p", { class: "intro" });
    const reset = action("Take all back", () => decide([...decisions].map(([key]) => [key, undefined])), { title: "Undo brings them back", kind: "bad" });
    const element = node("div", {}, summary, node("div", { class: "actions" }, action("Export", exportDecisions, { kind: "accept" }), reset), list.element);
    const update = () => {
      const kept = [...decisions].filter(([key]) => what(key) === "keep").length, dropped = ALL_ROWS.filter(isDropped).length;
      summary.textContent = decisions.size ? `${counted(decisions.size - kept, "change")}; ${counted(kept, "suggestion")} rejected. The table has ${(N - dropped).toLocaleString("en")} of ${counted(N, "image")}. featx extract reads it without a forward pass.` : "Nothing is decided yet. Accept or reject suggestions in the other parts of the page, or relabel any image; then export the table and give it to featx extract.";
      reset.disabled = !decisions.size;
      list.setItems(entries(), { keepPlace: true });
    };
    update();
    return { element, update };
  });
}

// ---- Tabs

const parts = {};
const tabs = find("#tabs"), main = find("main");

function addTabs() {
  const head = find("#head-part");
  if (head) panel("head", "Head", null, () => ({ element: head, update: () => {} }));
  head?.remove();
  addDecisions();
  for (const each of panels) {
    each.tab = node("button", { type: "button", role: "tab", id: `tab-${each.id}`, "aria-controls": `part-${each.id}`, "aria-selected": "false", tabindex: "-1", onclick: () => showPanel(each.id) }, each.title, each.count === null ? null : node("span", { class: "n" }, each.count.toLocaleString("en")));
    if (each.count === 0) each.tab.classList.add("none");
    each.box = node("section", { role: "tabpanel", id: `part-${each.id}`, "aria-labelledby": `tab-${each.id}`, hidden: true, class: "part" });
    tabs.append(each.tab);
    main.append(each.box);
  }
  tabs.addEventListener("keydown", (event) => {
    const at = panels.findIndex(({ tab }) => tab === document.activeElement);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: panels.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const next = panels[(to + panels.length) % panels.length];
    showPanel(next.id);
    next.tab.focus();
  });
}

function showPanel(id, { focus = false } = {}) {
  const chosen = panels.find((each) => each.id === id) ?? panels[0];
  for (const each of panels) {
    const shown = each === chosen;
    each.tab.setAttribute("aria-selected", String(shown));
    each.tab.tabIndex = shown ? 0 : -1;
    each.box.hidden = !shown;
  }
  if (!chosen.element) {
    Object.assign(chosen, chosen.build());
    parts[chosen.id] = chosen;
    chosen.box.append(chosen.element);
  }
  chosen.update();
  tabs.scrollTo({ left: chosen.tab.offsetLeft - tabs.clientWidth / 2 + chosen.tab.offsetWidth / 2 });
  const top = main.getBoundingClientRect().top + scrollY - find(".bar-top").offsetHeight;
  if (scrollY > top) scrollTo(0, Math.max(0, top));
  if (focus) chosen.tab.focus({ preventScroll: true });
  chosen.gallery?.list.layout();
  try { history.replaceState(null, "", `#${chosen.id}`); } catch { /* some browsers refuse it for local files */ }
}

// ---- The state, at the top

function showState() {
  const changes = decisions.size, text = find("#state");
  text.textContent = !changes ? "Nothing decided yet" : `${counted(changes, "decision")}, ${isExported() ? "exported" : "not exported"}`;
  text.className = changes && !isExported() ? "unsaved" : "";
  find("#storage").hidden = !storageFails;
  find("#undo").disabled = !done.length;
  find("#redo").disabled = !undone.length;
  find("#export").disabled = !changes;
  const shown = panels.find(({ box }) => !box.hidden);
  shown?.update();
}

addEventListener("beforeunload", (event) => { if (decisions.size && !isExported()) event.preventDefault(); });
addEventListener("storage", (event) => { if (event.key === STORAGE_KEY) { restore(); showState(); } }); // another tab with this page
addEventListener("hashchange", () => showPanel(location.hash.slice(1)));

addEventListener("keydown", (event) => {
  const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName ?? "");
  const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
  if (control && !writing && key === "z") (event.shiftKey ? redo : undo)();
  else if (control && !writing && key === "y") redo();
  else if (!control && !writing && event.key === "?") find("#help").showModal();
  else if (!control && !writing && event.key === "/" && !find("dialog[open]")) find(".part:not([hidden]) input[type=search]")?.focus();
  else return;
  event.preventDefault();
});

find("#undo").addEventListener("click", undo);
find("#redo").addEventListener("click", redo);
find("#export").addEventListener("click", exportDecisions);
find("#help-button").addEventListener("click", () => find("#help").showModal());
document.body.append(node("datalist", { id: "label-names" }, LABEL_NAMES.map((name) => node("option", { value: name }))));

restore();
addOverview();
addMap();
addGalleries();
addTabs();
onDecision(showState);
showState();
showPanel(location.hash.slice(1) || "overview");
document.body.classList.add("ready");
