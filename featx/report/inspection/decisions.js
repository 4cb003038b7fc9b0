"use strict";
// What the user decided: a map from keys to values, with undo, kept in localStorage, and the table that is exported.
//
//   label:<row>  the new label ("" takes the label away)     drop:<row>   true: the image is left out
//   split:<row>  the new split                               group:<g>    true: the duplicates of group g get one group name
//   keep:<kind>:<id>  true: a suggestion is rejected; the kinds are label, duplicates, leak, conflict, outlier, odd

const decisions = new Map();
const STORAGE_KEY = `featx-inspection-${DATA.digest}`;
const done = [],
  undone = []; // changes: lists of [key, before, after]
let exportedState = null; // of the decisions when they were last exported
let storageFails = false;
const listeners = [];
const onDecision = (listener) => listeners.push(listener);

const stateText = () => JSON.stringify([...decisions].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
const isExported = () => exportedState === stateText();

function store() {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify({ decisions: [...decisions], exported: exportedState }));
    storageFails = false;
  } catch {
    storageFails = true; // private windows, a full store, or a browser that gives local files none
  }
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "null");
    if (!kept || !Array.isArray(kept.decisions)) return;
    decisions.clear();
    for (const [key, value] of kept.decisions) if (typeof key === "string") decisions.set(key, value);
    exportedState = kept.exported ?? null;
  } catch {
    storageFails = true;
  }
}

function announce() {
  store();
  for (const listener of listeners) listener();
}

const put = (key, value) => (value === undefined ? decisions.delete(key) : decisions.set(key, value));

/** Change several keys in one step; undefined takes a key out. */
function decide(changes) {
  const step = changes
    .map(([key, value]) => [key, decisions.get(key), value])
    .filter(([, before, after]) => before !== after);
  if (!step.length) return;
  for (const [key, , after] of step) put(key, after);
  done.push(step);
  undone.length = 0;
  announce();
}

function undo() {
  const step = done.pop();
  if (!step) return;
  for (const [key, before] of step.toReversed()) put(key, before);
  undone.push(step);
  announce();
}

function redo() {
  const step = undone.pop();
  if (!step) return;
  for (const [key, , after] of step) put(key, after);
  done.push(step);
  announce();
}

// ---- What the decisions make of a row

const newLabel = (row) => decisions.get(`label:${row}`) ?? givenLabel(row);
const newSplit = (row) => decisions.get(`split:${row}`) ?? givenSplit(row);
const isDropped = (row) => decisions.has(`drop:${row}`);
const isRelabelled = (row) => decisions.has(`label:${row}`);

const relabel = (row, label) => [
  [`label:${row}`, label === givenLabel(row) ? undefined : label],
  [`keep:label:${row}`, label === givenLabel(row) ? true : undefined],
];
const drop = (row, dropped = true) => [[`drop:${row}`, dropped ? true : undefined]];
const moveTo = (row, split) => [[`split:${row}`, split === givenSplit(row) ? undefined : split]];

/** The label as the table will hold it, or the reason why it cannot. Returns [label, problem]. */
function checkedLabel(text) {
  const label = text.trim();
  if (IS_MULTILABEL && label !== BETWEEN_LABELS && label !== "") {
    const parts = [
      ...new Set(
        label
          .split(BETWEEN_LABELS)
          .map((part) => part.trim())
          .filter(Boolean),
      ),
    ].sort();
    return [parts.join(BETWEEN_LABELS) || BETWEEN_LABELS, ""];
  }
  if (!IS_MULTILABEL && label.includes(BETWEEN_LABELS))
    return ["", `a name with ${BETWEEN_LABELS} would be read as several labels`];
  if (IS_REGRESSION && label !== "" && !Number.isFinite(Number(label))) return ["", "expected a number"];
  if (label.includes("\0")) return ["", "a label cannot hold a null character"];
  return [label, ""];
}

/** "accepted", "rejected" or "" of one suggestion. A suggestion whose problem is solved by another decision is accepted. */
const statusOf = {
  label: (row) =>
    isRelabelled(row) || isDropped(row) ? "accepted" : decisions.has(`keep:label:${row}`) ? "rejected" : "",
  outlier: (row) => (isDropped(row) ? "accepted" : decisions.has(`keep:outlier:${row}`) ? "rejected" : ""),
  odd: (row) => (isDropped(row) ? "accepted" : decisions.has(`keep:odd:${row}`) ? "rejected" : ""),
  duplicates: (group) =>
    decisions.has(`group:${group}`) || DATA.duplicates.groups[group].some(isDropped)
      ? "accepted"
      : decisions.has(`keep:duplicates:${group}`)
        ? "rejected"
        : "",
  leak: ([a, b]) =>
    isDropped(a) || isDropped(b) || newSplit(a) === newSplit(b)
      ? "accepted"
      : decisions.has(`keep:leak:${a}-${b}`)
        ? "rejected"
        : "",
  conflict: ([a, b]) =>
    isDropped(a) || isDropped(b) || newLabel(a) === newLabel(b)
      ? "accepted"
      : decisions.has(`keep:conflict:${a}-${b}`)
        ? "rejected"
        : "",
};

// ---- The table

/**
 * Names of the groups of all rows: those of the data, joined where accepted duplicates connect them. Duplicates without a name
 * are named by the content of one of them, as `featx inspect --fix` does. Dropped images belong to no group.
 */
function groupNames() {
  const given = ALL_ROWS.map((row) => (isDropped(row) ? "" : (DATA.groups?.[row] ?? "")));
  const accepted = DATA.duplicates.groups.flatMap((rows, group) =>
    decisions.has(`group:${group}`) ? [rows.filter((row) => !isDropped(row))] : [],
  );
  if (!accepted.length) return given;
  const parent = Int32Array.from(ALL_ROWS),
    first = new Map(),
    members = new Map();
  const top = (row) => {
    while (parent[row] !== row) row = parent[row] = parent[parent[row]];
    return row;
  };
  const join = (rows) =>
    rows.forEach((row) => {
      parent[top(row)] = top(rows[0]);
    });
  given.forEach((name, row) => {
    if (name) {
      if (first.has(name)) join([row, first.get(name)]);
      else first.set(name, row);
    }
  });
  accepted.forEach(join);
  for (const rows of accepted) {
    for (const row of rows) {
      if (!members.has(top(row))) members.set(top(row), []);
      members.get(top(row)).push(row);
    }
  }
  const names = new Map();
  given.forEach((name, row) => {
    if (name && !(names.get(top(row)) <= name)) names.set(top(row), name);
  });
  for (const [key, rows] of members)
    if (rows.length > 1 && !names.has(key)) names.set(key, `dup-${rows.map((row) => KEYS.get(row)).sort()[0]}`);
  return ALL_ROWS.map((row) => (isDropped(row) ? "" : (names.get(top(row)) ?? "")));
}

const ENDING = ALL_ROWS.every((row) => fullPath(row).isWellFormed()) ? "csv" : "jsonl";

/** What to run with the exported table, in the way in which the features were made, so that no image is computed again. */
function nextCommands() {
  const isGrouped = DATA.groups?.some(Boolean) || [...decisions.keys()].some((key) => key.startsWith("group:"));
  const commands = [`featx extract ${baseName()}-mended.${ENDING}${DATA.extractOptions}`];
  if (ALL_ROWS.some((row) => newLabel(row) !== "" && !isDropped(row)))
    commands.push(`featx fit-head${DATA.fitOptions}${isGrouped ? " --group group" : ""} --compare HEAD`);
  return commands;
}

/** One cell of RFC 4180: quoted where it holds a comma, a quote or a line break, or spaces at its ends. */
const csvCell = (text) => (/[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** The table of some rows without the dropped ones: [text, ending, media type]. JSON lines hold names that are not UTF-8. */
function exportTable(rows = ALL_ROWS) {
  const groups = groupNames();
  const kept = rows
    .filter((row) => !isDropped(row))
    .map((row) => ({ path: fullPath(row), label: newLabel(row), split: newSplit(row), group: groups[row] }));
  if (ENDING === "jsonl") {
    const escaped = (value) => JSON.stringify(value); // writes lone surrogates as \udc80, which featx reads as bytes
    return [kept.map((cells) => `${escaped(cells)}\n`).join(""), "jsonl", "application/jsonl"];
  }
  const lines = kept.map((cells) => Object.values(cells).map(csvCell).join(","));
  return [["path,label,split,group", ...lines, ""].join("\n"), "csv", "text/csv"];
}

/** Give a text to the browser as a download. */
function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = node("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const baseName = () =>
  DATA.name
    .split(/[\\/]/)
    .pop()
    .replace(/[^\p{L}\p{N}._-]+/gu, "-")
    .replace(/^[-.]+|[-.]+$/g, "") || "images";

function exportDecisions() {
  const [text, ending, type] = exportTable();
  download(text, `${baseName()}-mended.${ending}`, type);
  exportedState = stateText();
  announce();
}

function exportRows(rows, what) {
  const [text, ending, type] = exportTable(rows);
  download(text, `${baseName()}-${what}.${ending}`, type);
}
