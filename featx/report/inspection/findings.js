"use strict";
// The parts of the page that show images: galleries, the confusion matrix, the map with its selection.

/** The parts of the page: {id, title, count, build, element, update, tab, box}. */
const panels = [];

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
    return {
      element: node("div", {}, intro ? node("p", { class: "intro" }, intro) : null, gallery.element),
      update: () => gallery.update(),
      gallery,
    };
  });
}

function addGalleries() {
  const { duplicates, leaks } = DATA,
    spread = (group) => (duplicates.exact[group] ? -1 : (duplicates.distances[group] ?? Infinity));
  const groups = duplicates.groups.map((_, group) => group).sort((a, b) => spread(a) - spread(b) || a - b);
  galleryPanel(
    "duplicates",
    "Duplicates",
    `Images that are the same file, or nearer to each other than a distance of ${decimal(duplicates.threshold)}; two random images have one of about 1.`,
    {
      items: groups,
      rowsOf: (group) => DATA.duplicates.groups[group],
      make: groupCard,
      ...groupSize,
      status: statusOf.duplicates,
      keys: (group, key) => {
        const changes = { a: keepOne, g: keepTogether, r: notDuplicates }[key]?.(group);
        if (changes) decide(changes);
        return Boolean(changes);
      },
      bulk: [
        { text: "Keep one of each", changes: (group) => keepOne(group) },
        { text: "Group all", changes: (group) => (decisions.has(`group:${group}`) ? [] : keepTogether(group)) },
      ],
      empty: "There are no duplicates.",
    },
  );
  if (DATA.splitNames.length > 1) {
    galleryPanel(
      "leaks",
      "Leaks",
      `Duplicates in different splits. A head has seen such a held-out image in training, so its accuracy is too good.${more(leaks.across, leaks.acrossCount)}`,
      {
        items: leaks.across,
        rowsOf: ([a, b]) => [a, b],
        make: (pair) => pairCard(pair, { buttons: leakButtons(pair), status: () => statusOf.leak(pair) }),
        ...pairSize,
        status: statusOf.leak,
        keys: (pair, key) => pressed(leakButtons(pair), { a: 0, d: 1, t: 2, r: 3 }[key]),
        bulk: [{ text: "Move all to the earlier split", changes: ([a, b]) => moveTo(b, givenSplit(a)) }],
        empty: "There are no duplicates across splits.",
      },
    );
  }
  if (LABEL_NAMES.length) {
    galleryPanel(
      "conflicts",
      "Conflicts",
      `Duplicates with different labels: at least one of the two is wrong.${more(leaks.conflicts, leaks.conflictCount)}`,
      {
        items: leaks.conflicts,
        rowsOf: ([a, b]) => [a, b],
        make: (pair) =>
          pairCard(pair, {
            buttons: conflictButtons(pair),
            status: () => statusOf.conflict(pair),
            note: predictedOf(pair),
          }),
        ...pairSize,
        status: statusOf.conflict,
        keys: (pair, key) => pressed(conflictButtons(pair), { a: 0, 1: 0, 2: 1, d: 2, r: 3 }[key]),
        empty: "There are no duplicates with different labels.",
      },
    );
  }
  if (ISSUES) addLabelGalleries();
  galleryPanel(
    "outliers",
    "Outliers",
    DATA.outliers.threshold === null
      ? ""
      : `Images whose mean distance to their nearest images is above ${decimal(DATA.outliers.threshold)}, the furthest first.`,
    {
      items: DATA.outliers.ranked,
      rowsOf: FIRST,
      ...cardSize(true),
      status: statusOf.outlier,
      make: (row, { list }) =>
        imageCard(row, {
          rows: list.items,
          fact: () => `distance ${decimal(DATA.outliers.distances[row])}`,
          buttons: dropButtons(row, "outlier"),
          status: () => statusOf.outlier(row),
        }),
      keys: (row, key) =>
        imageKeys(row, key, { a: (it) => acceptDrop(it, "outlier"), r: (it) => rejection("outlier", it) }),
      empty: "There are no outliers.",
    },
  );
  if (DATA.pixels) addOddGallery();
  galleryPanel("images", "Images", "", {
    items: ALL_ROWS,
    rowsOf: FIRST,
    ...cardSize(false),
    make: (row, { list }) => imageCard(row, { rows: list.items, fact: () => problemsOf(row).join(", ") }),
    keys: imageKeys,
    sorts: {
      "by path": (a, b) => a - b,
      ...(ISSUES && !IS_REGRESSION
        ? { "least confident first": (a, b) => (confidence(a) ?? 2) - (confidence(b) ?? 2) || a - b }
        : {}),
      "by label": (a, b) => (newLabel(a) < newLabel(b) ? -1 : newLabel(a) > newLabel(b) ? 1 : a - b),
      "furthest first": byDescending((row) => DATA.outliers.distances[row]),
    },
  });
}

const more = (shown, count) =>
  count > shown.length
    ? ` The closest ${shown.length.toLocaleString("en")} of ${count.toLocaleString("en")} pairs.`
    : "";
function predictedOf(pair) {
  const labels = [...new Set(pair.map(suggestedLabel).filter(Boolean))].map(printable).join(", ");
  return labels && `predicted ${labels}`;
}

function pressed(buttons, place) {
  if (place === undefined) return false;
  buttons[place].element.click();
  return true;
}

function addLabelGalleries() {
  const flagged = options("Found by", ["all suggestions", FOUND_BY], () =>
    parts.labels?.gallery.filter(),
  );
  flagged.passes = (row) => flagged.selectedIndex === 0 || Boolean(IS_LABEL_ISSUE[row]);
  const count = IS_REGRESSION
    ? `${counted(ISSUES.expected, "label is", "labels are")} far from the prediction.`
    : `About ${counted(ISSUES.expected, "label is", "labels are")} expected to be wrong.`;
  const expected = `${count} The most suspicious come first; each image was predicted by a head that was fitted without it.`;
  galleryPanel("labels", "Label errors", expected, {
    items: ISSUES.ranked,
    count: ISSUES.issues.length,
    rowsOf: FIRST,
    make: (row, { list }) => labelCard(row, { rows: list.items }),
    ...wideSize,
    status: statusOf.label,
    extra: [flagged],
    keys: (row, key) =>
      imageKeys(row, key, { a: (it) => relabel(it, suggestedLabel(it)), r: (it) => rejection("label", it) }),
    bulk: [{ text: "Accept all listed", changes: (row) => relabel(row, suggestedLabel(row)) }],
    empty: "Every label is the one that the head predicts.",
  });
  if (IS_REGRESSION) return;
  const matrix = DATA.task === "classification" ? confusionMatrix(() => parts.mistakes?.gallery) : null;
  const wrong = matrix ? matrix.items() : ALL_ROWS.filter(isMistake).sort(byDescending(confidence));
  panel("mistakes", "Mistakes", wrong.length, () => {
    const gallery = new Gallery({
      items: wrong,
      rowsOf: FIRST,
      label: "Mistakes",
      ...cardSize(true),
      status: statusOf.label,
      bySplit: !matrix,
      extra: matrix ? [matrix.split, matrix.chip].filter(Boolean) : [],
      empty: "No image is misclassified.",
      make: (row) =>
        imageCard(row, {
          rows: gallery.list.items,
          fact: () =>
            node(
              "span",
              {},
              "predicted ",
              labelled(suggestedLabel(row)),
              confidence(row) === null ? "" : ` ${percent(confidence(row))}`,
            ),
          status: () => statusOf.label(row),
          buttons: isMistake(row)
            ? [
                button(
                  ["To ", labelled(suggestedLabel(row))],
                  () =>
                    decide(
                      isRelabelled(row) && newLabel(row) === suggestedLabel(row)
                        ? [[`label:${row}`, undefined]]
                        : relabel(row, suggestedLabel(row)),
                    ),
                  () => isRelabelled(row) && newLabel(row) === suggestedLabel(row),
                  { kind: "accept", key: "a", title: "Change the label to the prediction" },
                ),
                button(
                  "Keep",
                  () => decide(rejection("label", row)),
                  () => decisions.has(`keep:label:${row}`),
                  { kind: "good", key: "r", title: "The label is right" },
                ),
              ]
            : [],
        }),
      keys: (row, key) =>
        imageKeys(row, key, { a: (it) => relabel(it, suggestedLabel(it)), r: (it) => rejection("label", it) }),
    });
    const intro = node("p", { class: "intro" }, "Predictions that differ from the label, the most confident first. Each image is predicted by a head that was fitted without it.");
    return {
      element: node("div", {}, intro, matrix?.element, gallery.element),
      update: () => gallery.update(),
      gallery,
    };
  });
}

function addOddGallery() {
  const kinds = Object.keys(DATA.pixels.kinds).filter((kind) => DATA.pixels.kinds[kind].length);
  const kind = options(
    "Kind",
    ["all kinds", ...kinds.map((name) => `${oddName(name)} (${DATA.pixels.kinds[name].length.toLocaleString("en")})`)],
    () => parts.odd?.gallery.filter(),
  );
  kind.passes = (row) => kind.selectedIndex === 0 || ODD_KINDS[row].includes(kinds[kind.selectedIndex - 1]);
  const unread = DATA.pixels.unread ? ` ${counted(DATA.pixels.unread, "image")} could not be read.` : "";
  galleryPanel("odd", "Odd images", `Blank, very dark or bright, blurred, or of an odd size or shape.${unread}`, {
    items: [...new Set(kinds.flatMap((name) => DATA.pixels.kinds[name]))],
    rowsOf: FIRST,
    ...cardSize(true),
    status: statusOf.odd,
    extra: kinds.length > 1 ? [kind] : [],
    make: (row, { list }) =>
      imageCard(row, {
        rows: list.items,
        fact: () => [...ODD_KINDS[row].map(oddName), sizeOf(row)?.join(" × ")].filter(Boolean).join(" · "),
        buttons: dropButtons(row, "odd"),
        status: () => statusOf.odd(row),
      }),
    keys: (row, key) => imageKeys(row, key, { a: (it) => acceptDrop(it, "odd"), r: (it) => rejection("odd", it) }),
    empty: "No image is odd.",
  });
}

// ---- The confusion matrix

const MOST_CLASSES_OF_MATRIX = 40;

/**
 * A table of true and predicted classes whose cells filter the gallery, for one split or all. `split` and `chip` are its filters,
 * `items()` what the gallery shows. A page about a head begins with the split that judged it.
 */
function confusionMatrix(galleryOf) {
  const judged = ALL_ROWS.filter((row) => suggestedLabel(row) !== ""),
    wrong = judged.filter(isMistake).sort(byDescending(confidence));
  const seen = new Set(judged.flatMap((row) => [givenLabel(row), suggestedLabel(row)])),
    names = LABEL_NAMES.filter((name) => seen.has(name));
  const split = options("Split", ["all splits", ...DATA.splitNames.map(SPLIT_TEXT)], () => fill());
  split.selectedIndex = DATA.headFirst ? DATA.splitNames.indexOf(DATA.leaks.heldOut) + 1 : 0;
  split.passes = (row) => split.selectedIndex === 0 || DATA.splits[row] === split.selectedIndex - 1;
  const chip = node("span", { class: "filter-chip", hidden: true });
  let chosen = null,
    pressedCell = null;
  chip.passes = (row) => !chosen || (givenLabel(row) === chosen[0] && suggestedLabel(row) === chosen[1]);
  // The diagonal shows what is right.
  const items = () =>
    (chosen && chosen[0] === chosen[1] ? judged.filter(chip.passes).sort(byDescending(confidence)) : wrong).filter(
      split.passes,
    );
  const choose = (pair, cell) => {
    if (pressedCell) press(pressedCell, false);
    const again = cell === pressedCell;
    chosen = again ? null : pair;
    pressedCell = again ? null : cell;
    if (pressedCell) press(pressedCell, true);
    chip.hidden = !chosen;
    chip.replaceChildren(
      ...(chosen
        ? [
            foreign(chosen[0]),
            " predicted as ",
            foreign(chosen[1]),
            node(
              "button",
              { type: "button", "aria-label": "Remove this filter", onclick: () => choose(null, pressedCell) },
              "×",
            ),
          ]
        : []),
    );
    galleryOf()?.setItems(items());
  };
  const cellButton = (count, pair) =>
    node(
      "button",
      {
        type: "button",
        "aria-pressed": "false",
        "aria-label": `${counted(count, "image")} of ${printable(pair[0])} predicted as ${printable(pair[1])}`,
        onclick: (event) => choose(pair, event.currentTarget),
      },
      count.toLocaleString("en"),
    );
  const box = node("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Confusion matrix" });
  const fill = () => {
    const counts = new Map();
    for (const row of judged.filter(split.passes)) {
      const pair = JSON.stringify([givenLabel(row), suggestedLabel(row)]);
      counts.set(pair, (counts.get(pair) ?? 0) + 1);
    }
    box.replaceChildren(
      names.length <= MOST_CLASSES_OF_MATRIX
        ? squareMatrix(names, counts, cellButton)
        : listOfConfusions(counts, cellButton),
    );
    choose(null, null);
  };
  fill();
  return {
    element: node(
      "details",
      { class: "matrix", open: true },
      node("summary", {}, "Confusion matrix: a cell shows its images"),
      box,
    ),
    split: DATA.splitNames.length > 1 ? split : null,
    chip,
    items,
  };
}

function squareMatrix(names, counts, cellButton) {
  const of = (a, b) => counts.get(JSON.stringify([a, b])) ?? 0;
  const sums = new Map(names.map((name) => [name, names.reduce((sum, other) => sum + of(name, other), 0)]));
  const cell = (a, b) => {
    const count = of(a, b),
      element = node(
        "td",
        { class: a === b ? "right" : "" },
        count ? cellButton(count, [a, b]) : node("span", { class: "zero" }, "0"),
      );
    element.style.setProperty("--share", sums.get(a) ? (count / sums.get(a)).toFixed(3) : "0");
    return element;
  };
  return node(
    "table",
    {},
    node(
      "thead",
      {},
      node(
        "tr",
        {},
        node("td", { class: "corner" }, "label \\ predicted"),
        names.map((name) => node("th", { scope: "col", title: printable(name) }, node("span", {}, foreign(name)))),
      ),
    ),
    node(
      "tbody",
      {},
      names.map((a) =>
        node(
          "tr",
          {},
          node("th", { scope: "row", title: printable(a) }, foreign(a)),
          names.map((b) => cell(a, b)),
        ),
      ),
    ),
  );
}

function listOfConfusions(counts, cellButton) {
  const pairs = [...counts]
    .map(([text, count]) => [JSON.parse(text), count])
    .filter(([[a, b]]) => a !== b)
    .sort((x, y) => y[1] - x[1])
    .slice(0, 100);
  return node(
    "table",
    {},
    node(
      "thead",
      {},
      node(
        "tr",
        {},
        ["label", "predicted", "images"].map((name) => node("th", { scope: "col" }, name)),
      ),
    ),
    node(
      "tbody",
      {},
      pairs.map(([pair, count]) =>
        node(
          "tr",
          {},
          node("td", {}, foreign(pair[0])),
          node("td", {}, foreign(pair[1])),
          node("td", {}, cellButton(count, pair)),
        ),
      ),
    ),
  );
}

// ---- The map

let map = null;

function addMap() {
  if (!DATA.map) return;
  panel("map", "Map", null, () => {
    const gallery = new Gallery({
      items: [],
      rowsOf: FIRST,
      label: "Selection",
      ...cardSize(false),
      make: (row) => imageCard(row, { rows: gallery.list.items, fact: () => problemsOf(row).join(", ") }),
      keys: imageKeys,
    });
    const count = node("b", {}),
      select = groupSelect(() => map.selection);
    const selected = node(
      "section",
      { class: "selection", hidden: true, "aria-label": "Selection" },
      node(
        "div",
        { class: "head" },
        count,
        node(
          "div",
          { class: "actions" },
          action("Save selection as CSV", () => exportRows(map.selection, "selection")),
          select,
          action("Drop these", () => decide(map.selection.flatMap((row) => drop(row))), { kind: "bad" }),
          action("Clear", () => map.selectRows([])),
        ),
      ),
      gallery.element,
    );
    map = new ImageMap(DATA.map.points, DATA.map.name, (rows) => {
      count.textContent = `${counted(rows.length, "image")} selected`;
      selected.hidden = !rows.length;
      hint.hidden = Boolean(rows.length);
      gallery.setItems(rows);
    });
    const hint = node(
      "p",
      { class: "intro hint" },
      `${DATA.map.name} of the features. Drag to move, scroll or pinch to zoom; select with the lasso, or with Shift and a rectangle.`,
    );
    return {
      element: node("div", {}, map.element, hint, selected),
      update: () => {
        if (["label", "split", "decision"].includes(map.colourBy)) map.recolour();
        gallery.update();
      },
      gallery,
    };
  });
}

/** A select that gives all selected rows one label. */
function groupSelect(rowsOf) {
  if (!LABEL_NAMES.length || IS_MULTILABEL || IS_REGRESSION) return null;
  const select = node(
    "select",
    {
      "aria-label": "Label all selected images",
      onchange: () => {
        const label = LABEL_NAMES[select.selectedIndex - 1];
        if (label !== undefined) decide(rowsOf().flatMap((row) => relabel(row, label)));
        select.selectedIndex = 0;
      },
    },
    node("option", {}, "Label all as …"),
    LABEL_NAMES.map((name) => node("option", {}, printable(name))),
  );
  return select;
}
