"use strict";
// The findings of the inspection, and small helpers of all scripts. A row is the number of an image, from 0 to N - 1.
// Text from the data reaches the page only as text nodes and attributes, through `node`.

const DATA = JSON.parse(document.getElementById("data").textContent);
const THUMBNAILS = JSON.parse(document.getElementById("thumbnails").textContent);
document.getElementById("thumbnails").remove(); // the list above is the only copy that is needed
const N = DATA.paths.length;
const ALL_ROWS = Array.from({ length: N }, (_, row) => row);

// ---- Elements

/** Make an element. Attributes: `class`, `on…` for listeners, `data…`; null and false leave one out. Children: nodes or text. */
function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const find = (selector, within = document) => within.querySelector(selector);

/** Escape control characters, marks of direction and lone surrogates, as featx does in its tables. */
function printable(text) {
  return String(text).replace(/[\p{C}\p{Z}]/gu, (c) => {
    if (c === " ") return c;
    const code = c.codePointAt(0);
    if (code < 256) return { 9: "\\t", 10: "\\n", 13: "\\r" }[code] ?? `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 65536 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

/** Text from the data, isolated so that text from right to left does not reorder its surroundings. */
const foreign = (text, attributes = {}) => node("bdi", attributes, printable(text));

/** A label as text: none, and an empty list of labels, in words. */
const labelled = (label, attributes = {}) =>
  label === "" || (IS_MULTILABEL && label === BETWEEN_LABELS)
    ? node("i", attributes, label === "" ? "unlabelled" : "no label")
    : foreign(label, attributes);

// ---- Numbers

const counted = (count, one, several = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
/** A share in percent, with a decimal near the ends, where it matters. */
function percent(share) {
  if (share === null || share === undefined) return "";
  return `${(100 * share).toFixed(share !== 0 && share !== 1 && (share > 0.995 || share < 0.005) ? 1 : 0)} %`;
}
const decimal = (value) =>
  value === null || value === undefined ? "none" : value === 0 ? "0" : value.toPrecision(3).replace(/\.?0+$/, "");

// ---- Facts about a row

/** How label errors are found. */
const FOUND_BY = DATA.task === "regression" ? "far from the prediction" : "found by confident learning";
const BETWEEN_LABELS = "|";
const IS_MULTILABEL = DATA.task === "multilabel";
const IS_REGRESSION = DATA.task === "regression";
const SPLIT_TEXT = (name) => name || "(no split)";

const givenLabel = (row) => (DATA.labels[row] < 0 ? "" : DATA.classes[DATA.labels[row]]);
const givenSplit = (row) => DATA.splitNames[DATA.splits[row]];
const fileName = (row) => DATA.paths[row].slice(DATA.paths[row].lastIndexOf("/") + 1);
const isAbsolute = (path) => path.startsWith("/") || /^[A-Za-z]:[\\/]/.test(path);
const fullPath = (row) =>
  isAbsolute(DATA.paths[row]) || !DATA.folder ? DATA.paths[row] : `${DATA.folder.replace(/\/+$/, "")}/${DATA.paths[row]}`;

const ISSUES = DATA.labelIssues;
const suggestedLabel = (row) => (ISSUES ? ISSUES.names[ISSUES.suggested[row]] : "");
const confidence = (row) => (ISSUES ? ISSUES.confidence[row] : null);

/** The place of each row among the predictions, -1 for none. */
const JUDGED = new Int32Array(N).fill(-1);
if (DATA.predictions)
  DATA.predictions.rows.forEach((row, place) => {
    JUDGED[row] = place;
  });

/** The most probable classes of a row: [[name, probability], …]. */
function topPredictions(row) {
  const found = DATA.predictions,
    place = JUDGED[row];
  if (!found || place < 0 || !found.k) return [];
  return Array.from({ length: found.k }, (_, i) => place * found.k + i).map((at) => [
    found.classes[found.top[at]],
    found.probabilities[at],
  ]);
}

/** The probability of the given label, low where it is probably wrong; for other tasks than classification its score. */
const givenProbability = (row) => (ISSUES ? ISSUES.scores[row] : null);

/** The nearest other images of a row: [[row, distance], …]. */
function neighboursOf(row) {
  const { k, rows, distances } = DATA.neighbours;
  return Array.from({ length: k }, (_, i) => [rows[row * k + i], distances[row * k + i]]);
}

function sizeOf(row) {
  const sizes = DATA.pixels?.sizes;
  return sizes && sizes[2 * row] ? [sizes[2 * row], sizes[2 * row + 1]] : null;
}

// ---- The problems of each row

const ODD_NAMES = {
  low_information: "blank",
  light: "bright",
  blurry: "blurred",
  odd_aspect_ratio: "odd shape",
  grayscale: "grey",
};
const oddName = (kind) => ODD_NAMES[kind] ?? kind.replaceAll("_", " ");

const GROUP_OF = new Int32Array(N).fill(-1);
DATA.duplicates.groups.forEach((rows, group) =>
  rows.forEach((row) => {
    GROUP_OF[row] = group;
  }),
);

/** The content of each image that has duplicates, in hex. */
const KEYS = new Map(
  DATA.duplicates.groups.flatMap((rows, group) => rows.map((row, i) => [row, DATA.duplicates.keys[group][i]])),
);

const ODD_KINDS = Array.from({ length: N }, () => null);
for (const [kind, rows] of Object.entries(DATA.pixels?.kinds ?? {}))
  for (const row of rows) (ODD_KINDS[row] ??= []).push(kind);

const asMask = (rows) => {
  const mask = new Uint8Array(N);
  for (const row of rows) mask[row] = 1;
  return mask;
};
const IS_LABEL_ISSUE = asMask(ISSUES?.issues ?? []);
const IS_MISTAKE = asMask(ISSUES?.ranked ?? []); // the suggestion differs from the given label
const isMistake = (row) => IS_MISTAKE[row] === 1;
const IS_OUTLIER = asMask(DATA.outliers.ranked);
const IS_LEAK = asMask(DATA.leaks.across.flatMap(([a, b]) => [a, b]));
const IS_CONFLICT = asMask(DATA.leaks.conflicts.flatMap(([a, b]) => [a, b]));

/** The problems of a row, the gravest first. */
function problemsOf(row) {
  const found = [];
  if (IS_LEAK[row]) found.push("leak");
  if (IS_CONFLICT[row]) found.push("conflicting labels");
  if (IS_LABEL_ISSUE[row]) found.push("label error");
  if (GROUP_OF[row] >= 0) found.push("duplicate");
  if (IS_OUTLIER[row]) found.push("outlier");
  if (ODD_KINDS[row]) found.push("odd image");
  return found;
}

/** The labels to choose from: of multilabel data each label alone. */
const LABEL_NAMES = (() => {
  const used = new Set(DATA.labels.filter((label) => label >= 0).map((label) => DATA.classes[label]));
  if (!IS_MULTILABEL) return DATA.classes.filter((name) => used.has(name));
  return [...new Set([...used].flatMap((name) => name.split(BETWEEN_LABELS)))].filter(Boolean).sort();
})();

const hasLabel = (label, name) => (IS_MULTILABEL ? label.split(BETWEEN_LABELS).includes(name) : label === name);

// ---- Thumbnails

const gone = (why) => node("span", { class: "gone", title: printable(why) }, printable(why));

/** The picture of an image, or a placeholder with the reason for its absence. */
function thumbnail(row, alt = "") {
  if (!THUMBNAILS[row]) {
    return gone(DATA.pixels ? (DATA.pixels.why[row] ?? "no thumbnail") : "the images were not read");
  }
  const source = DATA.thumbnailFolder
    ? `${DATA.thumbnailFolder}/${THUMBNAILS[row]}`
    : `data:image/jpeg;base64,${THUMBNAILS[row]}`;
  const image = node("img", { src: source, alt: printable(alt), decoding: "async", draggable: "false" });
  image.addEventListener("error", () =>
    image.replaceWith(
      gone(DATA.thumbnailFolder ? "the folder of thumbnails is not beside this page" : "cannot be shown"),
    ),
  );
  return image;
}
