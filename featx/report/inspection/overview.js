"use strict";
// The overview of all findings, and the list of decisions.

// ---- The overview

function addOverview() {
  const about = DATA.headFirst ? null : find("#about");
  about?.remove();
  if (about && find(".numbers", about)) about.prepend(node("h2", {}, "Head"));
  panel("overview", "Overview", null, () => {
    const table = node("tbody"),
      kinds = problemKinds();
    const element = node(
      "div",
      { class: "overview" },
      node(
        "section",
        {},
        node("h2", {}, "What was found"),
        node(
          "div",
          { class: "scroll" },
          node(
            "table",
            { class: "found" },
            node(
              "thead",
              {},
              node(
                "tr",
                {},
                ["problem", "found", "decided", "what it is"].map((name, i) =>
                  node("th", { scope: "col", class: i === 1 || i === 2 ? "n" : null }, name),
                ),
              ),
            ),
            table,
          ),
        ),
      ),
      leakSection(),
      about,
      classSection(),
    );
    const update = () =>
      table.replaceChildren(
        ...kinds.map(([id, name, items, status, what]) =>
          node(
            "tr",
            {},
            node(
              "th",
              { scope: "row" },
              items.length
                ? node("button", { type: "button", class: "link", onclick: () => showPanel(id, { focus: true }) }, name)
                : name,
            ),
            node("td", { class: "n" }, items.length.toLocaleString("en")),
            node(
              "td",
              { class: "n" },
              items.length ? items.filter((item) => status(item)).length.toLocaleString("en") : "",
            ),
            node("td", { class: "what" }, what),
          ),
        ),
      );
    update();
    return { element, update };
  });
}

/** [part of the page, name, suggestions, status of one, what it means] of each kind of problem. */
function problemKinds() {
  const { leaks } = DATA,
    kinds = [
      [
        "duplicates",
        "Groups of duplicates",
        DATA.duplicates.groups.map((_, group) => group),
        statusOf.duplicates,
        DATA.duplicates.groups.length ? `${counted(DATA.duplicates.groups.flat().length, "image")} in all` : "",
      ],
    ];
  if (DATA.splitNames.length > 1)
    kinds.push([
      "leaks",
      "Leaks across splits",
      leaks.across,
      statusOf.leak,
      leaks.heldOut && leaks.across.length
        ? `${counted(leaks.leaked.length, `image of ${leaks.heldOut} has`, `images of ${leaks.heldOut} have`)} a duplicate in the training images`
        : "",
    ]);
  if (LABEL_NAMES.length)
    kinds.push([
      "conflicts",
      "Duplicates with different labels",
      leaks.conflicts,
      statusOf.conflict,
      leaks.conflicts.length ? "at least one label of each pair is wrong" : "",
    ]);
  if (ISSUES)
    kinds.push([
      "labels",
      "Labels that are probably wrong",
      ISSUES.issues,
      statusOf.label,
      `${FOUND_BY}; ${IS_REGRESSION ? "" : `about ${ISSUES.expected.toLocaleString("en")} expected, `}${counted(ISSUES.ranked.length, "suggestion")} ranked`,
    ]);
  kinds.push(["outliers", "Outliers", DATA.outliers.ranked, statusOf.outlier, "far from all other images"]);
  if (DATA.pixels) {
    const found = Object.entries(DATA.pixels.kinds).filter(([, rows]) => rows.length);
    kinds.push([
      "odd",
      "Odd images",
      [...new Set(found.flatMap(([, rows]) => rows))],
      statusOf.odd,
      found.map(([kind, rows]) => `${rows.length.toLocaleString("en")} ${oddName(kind)}`).join(", ") ||
        "blank, dark, bright, blurred, or of an odd size or shape",
    ]);
  }
  return kinds;
}

function leakSection() {
  const { leaks } = DATA;
  if (!leaks.with && !leaks.without) return null;
  const row = (name, text) =>
    text ? node("tr", {}, node("th", { scope: "row" }, name), node("td", {}, printable(text))) : null;
  return node(
    "section",
    {},
    node("h2", {}, "What the leaks are worth"),
    node(
      "p",
      {},
      `The same head, judged on split ${printable(leaks.heldOut)} with and without the images that have a duplicate among the training images.`,
    ),
    node(
      "div",
      { class: "scroll" },
      node("table", {}, node("tbody", {}, row("with them", leaks.with), row("without them", leaks.without))),
    ),
  );
}

/** The classes with their images in each split, and their problems. */
function classSection() {
  if (IS_REGRESSION || !LABEL_NAMES.length) return null;
  const splits = DATA.splitNames,
    problems = ISSUES ? asMask(ISSUES.issues) : new Uint8Array(N);
  const places = new Map(LABEL_NAMES.map((name, i) => [name, i])),
    table = LABEL_NAMES.map(() => ({ splits: splits.map(() => 0), wrong: 0, missed: 0 }));
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
  const link = (name) =>
    node(
      "button",
      {
        type: "button",
        class: "link",
        onclick: () => {
          showPanel("images", { focus: true });
          parts.images.gallery.label.selectedIndex = 1 + places.get(name);
          parts.images.gallery.filter();
        },
      },
      foreign(name),
    );
  const header = [
    IS_MULTILABEL ? "label" : "class",
    ...splits.map(SPLIT_TEXT),
    ...(ISSUES ? ["label errors", "mistakes"] : []),
  ];
  const rows = LABEL_NAMES.map((name, i) =>
    node(
      "tr",
      {},
      node("th", { scope: "row" }, link(name)),
      table[i].splits.map(number),
      ISSUES ? [number(table[i].wrong), number(table[i].missed)] : null,
    ),
  );
  const content = node(
    "div",
    { class: "scroll" },
    node(
      "table",
      {},
      node(
        "thead",
        {},
        node(
          "tr",
          {},
          header.map((name, i) => node("th", { scope: "col", class: i ? "n" : null }, printable(name))),
        ),
      ),
      node("tbody", {}, rows),
    ),
  );
  const title = IS_MULTILABEL ? "Labels" : "Classes";
  return node(
    "section",
    {},
    node("h2", {}, title),
    LABEL_NAMES.length > 30
      ? node("details", {}, node("summary", {}, counted(LABEL_NAMES.length, "class", "classes")), content)
      : content,
  );
}

// ---- The decisions

const KEY_TEXT = {
  label: (row, label) => [
    "label ",
    labelled(givenLabel(row)),
    " → ",
    labelled(label),
  ],
  drop: () => ["dropped"],
  split: (row, split) => ["split ", foreign(SPLIT_TEXT(givenSplit(row))), " → ", foreign(split)],
  group: (group) => [`kept together: ${counted(DATA.duplicates.groups[group].length, "duplicate")}`],
};

function addDecisions() {
  panel("decisions", "Decisions", null, () => {
    const what = (key) => key.split(":")[0],
      target = (key) => Number(key.split(":")[1]);
    const entries = () =>
      [...decisions]
        .filter(
          ([key]) =>
            what(key) in KEY_TEXT &&
            (what(key) === "group" ? target(key) < DATA.duplicates.groups.length : target(key) < N),
        )
        .reverse();
    const list = new VirtualList(
      ([key, value]) => {
        const row = what(key) === "group" ? DATA.duplicates.groups[target(key)][0] : target(key),
          rows = what(key) === "group" ? DATA.duplicates.groups[target(key)] : [row];
        const element = node(
          "article",
          { class: "card entry" },
          opener(row, rows),
          node(
            "div",
            { class: "text" },
            node("div", {}, KEY_TEXT[what(key)](target(key), value)),
            node("div", { class: "name", title: printable(DATA.paths[row]) }, foreign(DATA.paths[row])),
          ),
          action("Take back", () => decide([[key, undefined]])),
        );
        return { element, update: () => {} };
      },
      { label: "Decisions", minWidth: (width) => (width > 1100 ? 520 : width), height: () => 76 },
    );
    const summary = node("p", { class: "intro" }),
      commands = node("pre", { class: "commands", tabindex: "0", "aria-label": "Commands for the exported table" });
    const reset = action("Take all back", () => decide([...decisions].map(([key]) => [key, undefined])), {
      title: "Undo brings them back",
      kind: "bad",
    });
    const element = node(
      "div",
      {},
      summary,
      node("div", { class: "actions" }, action("Export", exportDecisions, { kind: "accept" }), reset),
      commands,
      list.element,
    );
    const update = () => {
      const kept = [...decisions].filter(([key]) => what(key) === "keep").length,
        dropped = ALL_ROWS.filter(isDropped).length;
      summary.textContent = decisions.size
        ? `${counted(decisions.size - kept, "change")}; ${counted(kept, "suggestion")} rejected. The table has ${(N - dropped).toLocaleString("en")} of ${counted(N, "image")}. Export it, and run these commands where it is saved; no image passes through the backbone again:`
        : "Nothing is decided yet. Accept or reject suggestions in the other parts of the page, or relabel any image; then export the table and give it to featx extract.";
      commands.hidden = !decisions.size;
      commands.textContent = nextCommands().join("\n");
      reset.disabled = !decisions.size;
      list.setItems(entries(), { keepPlace: true });
    };
    update();
    return { element, update };
  });
}
