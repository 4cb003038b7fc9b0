"use strict";
// What the map may be coloured by, and the colours.

const darkScheme = matchMedia("(prefers-color-scheme: dark)");

const PALETTE = [
  ["#2f6fb3", "#6ea8e5"],
  ["#d9822b", "#f0a35e"],
  ["#3a9b5c", "#67c587"],
  ["#c23b4b", "#ee7c88"],
  ["#7e57b8", "#b497e6"],
  ["#8a6246", "#c49c7f"],
  ["#d069a8", "#ef9fce"],
  ["#1f9aa8", "#5ccbd8"],
  ["#9a9a23", "#cfce5e"],
  ["#5b6673", "#a2adb9"],
]; // for light and dark paper

/** Colours that are told apart: the palette, and beyond it hues around the circle. */
function categoryColour(i, count) {
  const dark = darkScheme.matches;
  if (count <= PALETTE.length) return PALETTE[i][dark ? 1 : 0];
  return `hsl(${Math.round((i * 360) / count)} ${i % 2 ? 45 : 68}% ${(dark ? 66 : 42) + (i % 3) * 6}%)`;
}

/** A colour for a share between 0 and 1, from blue over green to yellow. */
function scaleColour(share) {
  const stops = [
      [72, 52, 130],
      [48, 104, 142],
      [32, 146, 140],
      [72, 186, 108],
      [212, 208, 52],
    ],
    at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = stops[Math.floor(at)],
    high = stops[Math.ceil(at)],
    part = at - Math.floor(at);
  return `rgb(${low.map((value, i) => Math.round(value + (high[i] - value) * part)).join(" ")})`;
}

const MUTED = () => (darkScheme.matches ? "#59626d" : "#b3bbc4");
const MOST_CATEGORIES = 60;

/**
 * Categories by the text of each row: {names, counts, of, colours}. Those of `order` come first, then the others, the most
 * frequent first. A fixed order keeps the colours as they are while decisions change the texts.
 */
function byText(textOf, { muted = "", order = [] } = {}) {
  const texts = ALL_ROWS.map(textOf),
    counts = new Map();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  const known = [...new Set([...order, ...byFrequency(texts)])].filter((text) => text !== muted);
  const kept = known.slice(0, MOST_CATEGORIES),
    rest = known.length > kept.length || counts.has(muted);
  const places = new Map(kept.map((text, i) => [text, i + (rest ? 1 : 0)])); // what is muted is drawn first, beneath
  const names = [...(rest ? [known.length > kept.length ? "all others" : muted || "none"] : []), ...kept];
  const of = Uint16Array.from(texts, (text) => places.get(text) ?? 0),
    totals = new Array(names.length).fill(0);
  for (const place of of) totals[place] += 1;
  return {
    names,
    counts: totals,
    of,
    colours: names.map((_, i) => (rest && i === 0 ? MUTED() : categoryColour(i - (rest ? 1 : 0), kept.length))),
  };
}

/** The different texts, the most frequent first. */
function byFrequency(texts) {
  const counts = new Map();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
}

/** Categories by a number of each row, in ten steps. */
function byNumber(valueOf, low, high, textOf) {
  const steps = 10,
    of = new Uint16Array(N),
    totals = new Array(steps + 1).fill(0);
  for (let row = 0; row < N; row++) {
    const value = valueOf(row);
    of[row] =
      value === null || !Number.isFinite(value)
        ? 0
        : 1 + Math.min(steps - 1, Math.max(0, Math.floor(((value - low) / (high - low || 1)) * steps)));
    totals[of[row]] += 1;
  }
  const names = [
    "none",
    ...Array.from(
      { length: steps },
      (_, i) => `${textOf(low + ((high - low) * i) / steps)} to ${textOf(low + ((high - low) * (i + 1)) / steps)}`,
    ),
  ];
  return { names, counts: totals, of, colours: names.map((_, i) => (i ? scaleColour((i - 0.5) / steps) : MUTED())) };
}

/** What points may be coloured by: {name: function to categories}. */
function colourings() {
  const found = {},
    labels = byFrequency(ALL_ROWS.map(givenLabel).filter(Boolean));
  if (IS_REGRESSION) {
    const values = ALL_ROWS.map((row) => (givenLabel(row) === "" ? null : Number(givenLabel(row)))),
      known = values.filter(Number.isFinite);
    const low = known.reduce((a, b) => Math.min(a, b), Infinity),
      high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    if (known.length) found.label = () => byNumber((row) => values[row], low, high, decimal);
  } else if (LABEL_NAMES.length) found.label = () => byText((row) => newLabel(row) || "unlabelled", { muted: "unlabelled", order: labels });
  if (DATA.splitNames.length > 1) found.split = () => byText((row) => SPLIT_TEXT(newSplit(row)), { order: DATA.splitNames.map(SPLIT_TEXT) });
  if (ISSUES && !IS_REGRESSION) {
    found.prediction = () => byText((row) => suggestedLabel(row) || "not judged", { muted: "not judged", order: labels });
    found.confidence = () => byNumber(confidence, 0, 1, (share) => `${Math.round(100 * share)} %`);
  }
  found.problem = () => byText((row) => problemsOf(row)[0] ?? "none found", { muted: "none found" });
  found.decision = () =>
    byText(
      (row) =>
        isDropped(row)
          ? "dropped"
          : isRelabelled(row)
            ? "relabelled"
            : decisions.has(`split:${row}`)
              ? "moved"
              : "undecided",
      { muted: "undecided", order: ["dropped", "relabelled", "moved"] },
    );
  return found;
}
