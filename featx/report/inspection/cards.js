"use strict";
// The items of lists: an image, a suggested label, a pair, a group of duplicates; and what their buttons decide.
// Every card is {element, update}: its content, and what brings it up to date after a decision.

/** A thumbnail that opens the large view. `rows` are those that the large view steps through. */
function opener(row, rows, { main = true } = {}) {
  return node(
    "button",
    {
      type: "button",
      class: main ? "open thumb" : "thumb",
      "aria-label": `Open ${printable(fileName(row))}, ${printable(newLabel(row) || "unlabelled")}`,
      onclick: () => openDetail(row, rows),
    },
    thumbnail(row),
  );
}

const action = (text, run, { title = "", kind = "", key = "" } = {}) =>
  node(
    "button",
    { type: "button", class: `action ${kind}`, title: title + (key ? ` (key ${key})` : ""), onclick: run },
    text,
  );

const press = (button, pressed) => button.setAttribute("aria-pressed", String(Boolean(pressed)));

/** The label, and what it was before: a function that fills an element. */
function showLabel(element, row) {
  const now = labelled(newLabel(row), { class: "label" });
  element.replaceChildren(
    ...(isRelabelled(row) ? [node("s", {}, labelled(givenLabel(row))), " → ", now] : [now]),
  );
}

function showSplit(element, row) {
  const moved = decisions.has(`split:${row}`);
  element.replaceChildren(
    ...(moved
      ? [node("s", {}, foreign(SPLIT_TEXT(givenSplit(row)))), " → ", foreign(SPLIT_TEXT(newSplit(row)))]
      : [foreign(SPLIT_TEXT(newSplit(row)))]),
  );
}

/** One image with its label, one line of facts, and its name. Returns {element, update}. */
function imageCard(row, { rows, fact = () => "", buttons = [], status = () => "" }) {
  const label = node("span", { class: "label-line" }),
    split = node("span", { class: "split" });
  const element = node(
    "article",
    { class: "card" },
    opener(row, rows),
    node(
      "div",
      { class: "text" },
      node("div", { class: "line" }, label, DATA.splitNames.length > 1 ? split : null),
      node("div", { class: "fact" }, fact(row)),
      node("div", { class: "name", title: printable(DATA.paths[row]) }, foreign(fileName(row))),
    ),
    buttons.length
      ? node(
          "div",
          { class: "actions" },
          buttons.map(({ element }) => element),
        )
      : null,
  );
  const update = () => {
    showLabel(label, row);
    showSplit(split, row);
    element.classList.toggle("dropped", isDropped(row));
    element.dataset.status = status();
    for (const button of buttons) press(button.element, button.pressed());
  };
  return { element, update };
}

const button = (text, run, pressed, options) => ({ element: action(text, run, options), pressed });

/** The buttons of an image that may be dropped: an outlier or an odd image. */
const dropButtons = (row, kind) => [
  button(
    "Drop",
    () => decide(isDropped(row) ? drop(row, false) : acceptDrop(row, kind)),
    () => isDropped(row),
    { title: "Leave the image out", kind: "bad", key: "a" },
  ),
  button(
    "Keep",
    () => decide(rejection(kind, row)),
    () => decisions.has(`keep:${kind}:${row}`),
    { title: "Nothing is wrong with the image", kind: "good", key: "r" },
  ),
];
const acceptDrop = (row, kind) => [...drop(row), [`keep:${kind}:${row}`, undefined]];

/** Reject a suggestion, or take the rejection back; what was decided about the row is taken back. */
function rejection(kind, row) {
  const key = `keep:${kind}:${row}`;
  if (decisions.has(key)) return [[key, undefined]];
  return [[key, true], [`drop:${row}`, undefined], ...(kind === "label" ? [[`label:${row}`, undefined]] : [])];
}

/** A label that is probably wrong: the image, what is given and suggested, and the neighbours with their labels. */
function labelCard(row, { rows }) {
  const suggested = suggestedLabel(row),
    given = givenLabel(row);
  const other = labelSelect(row);
  const buttons = [
    button(
      ["Change to ", labelled(suggested)],
      () =>
        decide(
          isRelabelled(row) && newLabel(row) === suggested ? [[`label:${row}`, undefined]] : relabel(row, suggested),
        ),
      () => isRelabelled(row) && newLabel(row) === suggested,
      { kind: "accept", key: "a" },
    ),
    button(
      ["Keep ", labelled(given)],
      () => decide(rejection("label", row)),
      () => decisions.has(`keep:label:${row}`),
      { kind: "good", key: "r" },
    ),
    button(
      "Drop",
      () => decide(drop(row, !isDropped(row))),
      () => isDropped(row),
      { kind: "bad", key: "d", title: "Leave the image out" },
    ),
  ];
  const label = node("span", { class: "label-line" }),
    split = node("span", { class: "split" });
  const element = node(
    "article",
    { class: "card suggestion" },
    opener(row, rows),
    node(
      "div",
      { class: "text" },
      node(
        "div",
        { class: "line" },
        label,
        DATA.splitNames.length > 1 ? split : null,
        IS_LABEL_ISSUE[row]
          ? node("span", { class: "chip", title: FOUND_BY }, "probably wrong")
          : null,
      ),
      node(
        "dl",
        { class: "compare" },
        labelFacts(row).map(([name, value, share]) =>
          node("div", {}, node("dt", {}, name), node("dd", {}, value, share === null ? null : meter(share))),
        ),
      ),
      node("div", { class: "name", title: printable(DATA.paths[row]) }, foreign(DATA.paths[row])),
    ),
    node(
      "div",
      { class: "actions" },
      buttons.map(({ element }) => element),
      other.element,
    ),
    neighbourStrip(row, 6),
  );
  const update = () => {
    showLabel(label, row);
    showSplit(split, row);
    element.classList.toggle("dropped", isDropped(row));
    element.dataset.status = statusOf.label(row);
    for (const each of buttons) press(each.element, each.pressed());
    other.update();
  };
  return { element, update };
}

/** Given and suggested label of a row with their probabilities: [[name, text, share or null], …]. */
function labelFacts(row) {
  const given = givenProbability(row),
    suggested = confidence(row);
  if (IS_REGRESSION)
    return [
      ["given", foreign(givenLabel(row)), null],
      ["predicted", foreign(suggestedLabel(row)), null],
    ];
  if (IS_MULTILABEL)
    return [
      ["given", labelled(givenLabel(row)), null],
      ["suggested", labelled(suggestedLabel(row)), null],
      ["score", decimal(given), given],
    ];
  return [
    ["given", [foreign(givenLabel(row)), ` ${percent(given)}`], given],
    ["suggested", [foreign(suggestedLabel(row)), ` ${percent(suggested)}`], suggested],
  ];
}

const meter = (share) => {
  const fill = node("i");
  fill.style.width = `${100 * Math.min(Math.max(share ?? 0, 0), 1)}%`;
  return node("span", { class: "meter", "aria-hidden": "true" }, fill);
};

/** The nearest images with their labels. */
function neighbourStrip(row, most) {
  const found = neighboursOf(row).slice(0, most);
  if (!found.length) return null;
  const rows = found.map(([other]) => other);
  return node(
    "div",
    { class: "strip", role: "group", "aria-label": "Nearest images" },
    found.map(([other, distance]) => {
      const same = hasSameLabel(row, other);
      return node(
        "figure",
        { class: same ? "" : "differs" },
        opener(other, rows, { main: false }),
        node(
          "figcaption",
          { title: `distance ${decimal(distance)}` },
          labelled(newLabel(other)),
        ),
      );
    }),
  );
}
const hasSameLabel = (a, b) => newLabel(a) === newLabel(b) || IS_REGRESSION; // numbers are seldom equal

/** A control that gives an image any label, also one that is not there yet. Returns {element, update}. */
function labelSelect(row) {
  if (IS_MULTILABEL || IS_REGRESSION || LABEL_NAMES.length > 300) return labelInput(row);
  const NEW = "new";
  const select = node("select", { "aria-label": `Label of ${printable(fileName(row))}`, class: "relabel" });
  const fill = () => {
    const names = [...new Set([...LABEL_NAMES, ...newNames()])];
    select.replaceChildren(
      node("option", { value: "none" }, "unlabelled"),
      ...names.map((name, i) =>
        node("option", { value: `n${i}` }, i < 9 ? `${printable(name)} (key ${i + 1})` : printable(name)),
      ),
      node("option", { value: NEW }, "new class …"),
    );
    select.names = names;
    const at = names.indexOf(newLabel(row));
    select.value = at < 0 ? "none" : `n${at}`;
  };
  select.addEventListener("change", () => {
    if (select.value === NEW) {
      askLabel(row);
      fill();
    } else decide(relabel(row, select.value === "none" ? "" : select.names[Number(select.value.slice(1))]));
  });
  return { element: select, update: fill };
}

/** The class names that decisions brought in. */
const newNames = () =>
  [...decisions]
    .filter(([key, value]) => key.startsWith("label:") && value !== "" && !LABEL_NAMES.includes(value))
    .map(([, value]) => value);

function labelInput(row) {
  const input = node("input", {
    class: "relabel",
    "aria-label": `Label of ${printable(fileName(row))}`,
    spellcheck: "false",
    list: IS_REGRESSION ? null : "label-names",
    inputmode: IS_REGRESSION ? "decimal" : null,
  });
  input.addEventListener("change", () => {
    const [label, problem] = checkedLabel(input.value);
    input.setCustomValidity(problem);
    if (problem) input.reportValidity();
    else decide(relabel(row, label));
  });
  return {
    element: input,
    update: () => {
      input.value = newLabel(row);
    },
  };
}

/** Two images side by side. Returns {element, update}. */
function pairCard([a, b, distance, exact], { buttons, status, note }) {
  const sides = [a, b].map((row) => {
    const label = node("span", { class: "label-line" }),
      split = node("span", { class: "split" });
    const side = node(
      "figure",
      {},
      opener(row, [a, b], { main: row === a }),
      node(
        "figcaption",
        {},
        node("div", { class: "line" }, label, split),
        node("div", { class: "name", title: printable(DATA.paths[row]) }, foreign(fileName(row))),
      ),
    );
    return {
      side,
      update: () => {
        showLabel(label, row);
        showSplit(split, row);
        side.classList.toggle("dropped", isDropped(row));
      },
    };
  });
  const element = node(
    "article",
    { class: "card pair" },
    node(
      "div",
      { class: "sides" },
      sides.map(({ side }) => side),
    ),
    node(
      "div",
      { class: "fact" },
      exact ? "same file" : `distance ${decimal(distance)}`,
      note ? ` · ${note}` : "",
    ),
    node(
      "div",
      { class: "actions" },
      buttons.map(({ element }) => element),
    ),
  );
  const update = () => {
    sides.forEach((side) => side.update());
    element.dataset.status = status();
    for (const each of buttons) press(each.element, each.pressed());
  };
  return { element, update };
}

/** Images that are copies of one another. Returns {element, update}. */
function groupCard(group) {
  const rows = DATA.duplicates.groups[group],
    most = 24,
    kept = bestOf(rows);
  const images = rows.slice(0, most).map((row, i) => {
    const label = node("span", { class: "label-line" }),
      split = node("span", { class: "split" });
    const out = action("Drop", () => decide([...drop(row, !isDropped(row)), [`keep:duplicates:${group}`, undefined]]), {
      kind: "bad",
    });
    const figure = node(
      "figure",
      {},
      opener(row, rows, { main: i === 0 }),
      node(
        "figcaption",
        {},
        node("div", { class: "line" }, label, split),
        node("div", { class: "name", title: printable(DATA.paths[row]) }, foreign(fileName(row))),
        out,
      ),
    );
    return {
      figure,
      update: () => {
        showLabel(label, row);
        showSplit(split, row);
        figure.classList.toggle("dropped", isDropped(row));
        press(out, isDropped(row));
      },
    };
  });
  const buttons = [
    button(
      "Keep one",
      () => decide(keepOne(group, kept)),
      () => rows.every((row) => isDropped(row) === (row !== kept)),
      { title: `Drop all but ${printable(fileName(kept))}`, kind: "accept", key: "a" },
    ),
    button(
      "Group",
      () => decide(keepTogether(group)),
      () => decisions.has(`group:${group}`),
      {
        title: "Keep all, and give them one name in the column group, so that they stay in one fold and split",
        kind: "good",
        key: "g",
      },
    ),
    button(
      "Not duplicates",
      () => decide(notDuplicates(group)),
      () => decisions.has(`keep:duplicates:${group}`),
      { title: "Keep all", key: "r" },
    ),
  ];
  const what = DATA.duplicates.exact[group]
    ? "same file"
    : `${rows.length > 2 ? "distances up to" : "distance"} ${decimal(DATA.duplicates.distances[group])}`;
  const element = node(
    "article",
    { class: "card group" },
    node(
      "div",
      { class: "head" },
      node("b", {}, counted(rows.length, "image")),
      node("span", { class: "fact" }, what),
      node(
        "div",
        { class: "actions" },
        buttons.map(({ element }) => element),
      ),
    ),
    node(
      "div",
      { class: "strip big" },
      images.map(({ figure }) => figure),
      rows.length > most ? node("p", { class: "fact" }, `and ${counted(rows.length - most, "more")}`) : null,
    ),
  );
  const update = () => {
    images.forEach((image) => image.update());
    element.dataset.status = statusOf.duplicates(group);
    for (const each of buttons) press(each.element, each.pressed());
  };
  return { element, update };
}

/** The image of a group to keep: the largest, and of equals the first. */
function bestOf(rows) {
  const area = (row) => {
    const size = sizeOf(row);
    return size ? size[0] * size[1] : 0;
  };
  return rows.reduce((best, row) => (area(row) > area(best) ? row : best), rows[0]);
}

const keepOne = (group, kept = bestOf(DATA.duplicates.groups[group])) => [
  ...DATA.duplicates.groups[group].flatMap((row) => drop(row, row !== kept)),
  [`group:${group}`, undefined],
  [`keep:duplicates:${group}`, undefined],
];
const keepTogether = (group) =>
  decisions.has(`group:${group}`)
    ? [[`group:${group}`, undefined]]
    : [
        [`group:${group}`, true],
        [`keep:duplicates:${group}`, undefined],
        ...DATA.duplicates.groups[group].flatMap((row) => drop(row, false)),
      ];
const notDuplicates = (group) =>
  decisions.has(`keep:duplicates:${group}`)
    ? [[`keep:duplicates:${group}`, undefined]]
    : [
        [`keep:duplicates:${group}`, true],
        [`group:${group}`, undefined],
        ...DATA.duplicates.groups[group].flatMap((row) => drop(row, false)),
      ];

/** The decisions about a leak; a is in the split that comes first of train, val, test. */
function leakButtons([a, b]) {
  const key = `keep:leak:${a}-${b}`,
    none = [
      [key, undefined],
      ...drop(a, false),
      ...drop(b, false),
      [`split:${a}`, undefined],
      [`split:${b}`, undefined],
    ];
  const only = (pressed, ...changes) => decide(pressed ? none : [...none, ...changes]);
  const moved = () => newSplit(b) === givenSplit(a),
    from = foreign(SPLIT_TEXT(givenSplit(a))),
    to = foreign(SPLIT_TEXT(givenSplit(b)));
  return [
    button(["Move to ", from], () => only(moved(), ...moveTo(b, givenSplit(a))), moved, {
      kind: "accept",
      key: "a",
      title: `Move the image of ${printable(givenSplit(b))} to ${printable(givenSplit(a))}`,
    }),
    button(
      ["Drop from ", to],
      () => only(isDropped(b), ...drop(b)),
      () => isDropped(b),
      { kind: "bad", key: "d" },
    ),
    button(
      ["Drop from ", from.cloneNode(true)],
      () => only(isDropped(a), ...drop(a)),
      () => isDropped(a),
      { kind: "bad", key: "t" },
    ),
    button(
      "No leak",
      () => only(decisions.has(key), [key, true]),
      () => decisions.has(key),
      { key: "r" },
    ),
  ];
}

/** The decisions about two images that are alike but have different labels. */
function conflictButtons([a, b]) {
  const key = `keep:conflict:${a}-${b}`,
    none = [
      [key, undefined],
      ...[a, b].flatMap((row) => [
        [`drop:${row}`, undefined],
        [`label:${row}`, undefined],
      ]),
    ];
  const only = (pressed, ...changes) => decide(pressed ? none : [...none, ...changes]);
  const both = (label) => newLabel(a) === label && newLabel(b) === label && !isDropped(a) && !isDropped(b);
  const named = (row) => labelled(givenLabel(row));
  return [
    button(
      ["Both are ", named(a)],
      () => only(both(givenLabel(a)), ...relabel(b, givenLabel(a))),
      () => both(givenLabel(a)),
      { kind: "accept", key: "1" },
    ),
    button(
      ["Both are ", named(b)],
      () => only(both(givenLabel(b)), ...relabel(a, givenLabel(b))),
      () => both(givenLabel(b)),
      { kind: "accept", key: "2" },
    ),
    button(
      "Drop both",
      () => only(isDropped(a) && isDropped(b), ...drop(a), ...drop(b)),
      () => isDropped(a) && isDropped(b),
      { kind: "bad", key: "d" },
    ),
    button(
      "Both are right",
      () => only(decisions.has(key), [key, true]),
      () => decisions.has(key),
      { key: "r" },
    ),
  ];
}
