"use strict";
// The large view of one image: all facts, its neighbours, and every decision about it.

const dialog = find("#detail");
let detail = { row: 0, rows: [], update: () => {} };

function openDetail(row, rows = [row]) {
  detail = { row, rows, update: () => {} };
  showDetail();
  if (!dialog.open) dialog.showModal();
  find(".close", dialog).focus();
}

function step(by) {
  const at = detail.rows.indexOf(detail.row) + by;
  if (at >= 0 && at < detail.rows.length) openDetail(detail.rows[at], detail.rows);
}

function showDetail() {
  const { row, rows } = detail,
    at = rows.indexOf(row),
    size = sizeOf(row);
  const label = node("span", { class: "label-line" });
  const select = labelSelect(row),
    outside = action("Drop", () => decide(drop(row, !isDropped(row))), {
      kind: "bad",
      key: "d",
      title: "Leave the image out",
    });
  const splits = [...new Set([...DATA.splitNames, "train", "val", "test"])].filter(Boolean);
  const split = options("Split", splits.map(SPLIT_TEXT), () => decide(moveTo(row, splits[split.selectedIndex])));
  const top = topPredictions(row);
  const facts = [
    ["label", label],
    ["split", foreign(SPLIT_TEXT(givenSplit(row)))],
    IS_REGRESSION && suggestedLabel(row) ? ["predicted", foreign(suggestedLabel(row))] : null,
    !IS_REGRESSION && isMistake(row)
      ? [
          "suggested",
          [
            labelled(suggestedLabel(row)),
            IS_MULTILABEL ? "" : ` ${percent(confidence(row))}`,
            node("small", {}, " by the head and the nearest images"),
          ],
        ]
      : null,
    ISSUES && ISSUES.scores[row] !== null
      ? ["label score", [decimal(ISSUES.scores[row]), node("small", {}, " low where the label is probably wrong")]]
      : null,
    DATA.outliers.distances[row] !== null && DATA.neighbours.k
      ? [
          "distance",
          [
            decimal(DATA.outliers.distances[row]),
            node(
              "small",
              {},
              ` to its nearest images; ${DATA.outliers.threshold === null ? "" : `outliers are above ${decimal(DATA.outliers.threshold)}`}`,
            ),
          ],
        ]
      : null,
    size ? ["size", `${size[0]} × ${size[1]} pixels`] : null,
    problemsOf(row).length
      ? [
          "problems",
          [...problemsOf(row).filter((kind) => kind !== "odd image"), ...(ODD_KINDS[row] ?? []).map(oddName)].map(
            (kind) => node("span", { class: "chip" }, kind),
          ),
        ]
      : null,
    GROUP_OF[row] >= 0
      ? [
          "duplicates",
          node(
            "button",
            {
              type: "button",
              class: "link",
              onclick: () =>
                openDetail(DATA.duplicates.groups[GROUP_OF[row]][0], DATA.duplicates.groups[GROUP_OF[row]]),
            },
            counted(DATA.duplicates.groups[GROUP_OF[row]].length, "image"),
          ),
        ]
      : null,
    DATA.groups?.[row] ? ["group", foreign(DATA.groups[row])] : null,
    [
      "path",
      [
        foreign(fullPath(row)),
        " ",
        node(
          "button",
          { type: "button", class: "link", onclick: (event) => copyText(fullPath(row), event.target) },
          "copy",
        ),
      ],
    ],
  ].filter(Boolean);
  const neighbours = neighboursOf(row);
  find(".content", dialog).replaceChildren(
    node("div", { class: "picture" }, thumbnail(row, `${fileName(row)}: ${newLabel(row) || "unlabelled"}`)),
    node(
      "div",
      { class: "about" },
      node("h2", { id: "detail-title" }, foreign(fileName(row))),
      node(
        "div",
        { class: "controls" },
        node("label", {}, "Label ", select.element),
        splits.length > 1 ? node("label", {}, "Split ", split) : null,
        outside,
      ),
      node(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, value))),
      ),
      top.length
        ? node(
            "div",
            { class: "predictions" },
            node("h3", {}, "What a head predicts that was fitted without this image"),
            top.map(([name, share]) => node("div", {}, foreign(name), node("span", {}, percent(share)), meter(share))),
          )
        : null,
    ),
    neighbours.length
      ? node("div", { class: "near" }, node("h3", {}, "Nearest images"), neighbourStrip(row, neighbours.length))
      : "",
  );
  find(".place", dialog).textContent =
    rows.length > 1 && at >= 0 ? `${(at + 1).toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
  find(".previous", dialog).disabled = at <= 0;
  find(".next", dialog).disabled = at < 0 || at >= rows.length - 1;
  detail.update = () => {
    showLabel(label, row);
    select.update();
    split.selectedIndex = splits.indexOf(newSplit(row));
    press(outside, isDropped(row));
    dialog.classList.toggle("is-dropped", isDropped(row));
  };
  detail.update();
}

function copyText(text, link) {
  const said = (word) => {
    link.textContent = word;
    setTimeout(() => {
      link.textContent = "copy";
    }, 1500);
  };
  Promise.resolve(navigator.clipboard?.writeText(text)).then(
    () => said(navigator.clipboard ? "copied" : "not possible here"),
    () => said("not possible here"),
  );
}

/** Ask for a class name that is not there yet. */
function askLabel(row) {
  const ask = find("#ask"),
    input = find("input", ask);
  input.value = "";
  input.setCustomValidity("");
  ask.row = row;
  ask.showModal();
}

find("#ask form").addEventListener("submit", (event) => {
  const ask = find("#ask"),
    input = find("input", ask),
    [label, problem] = checkedLabel(input.value);
  if (event.submitter?.value !== "cancel") {
    input.setCustomValidity(problem || (label ? "" : "a name is missing"));
    if (!input.reportValidity()) return event.preventDefault();
    decide(relabel(ask.row, label));
  }
  return undefined;
});
find("#ask input").addEventListener("input", (event) => event.target.setCustomValidity(""));

find(".close", dialog).addEventListener("click", () => dialog.close());
find(".previous", dialog).addEventListener("click", () => step(-1));
find(".next", dialog).addEventListener("click", () => step(1));
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
}); // beside it
dialog.addEventListener("keydown", (event) => {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "l") find(".relabel", dialog)?.focus();
  else if (event.key === "a" && isMistake(detail.row)) decide(relabel(detail.row, suggestedLabel(detail.row)));
  else if (event.key === "r") decide(rejection("label", detail.row));
  else if (!imageKeys(detail.row, event.key)) return;
  event.preventDefault();
});
onDecision(() => detail.update());
