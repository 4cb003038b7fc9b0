"use strict";
// Tabs, the state at the top, the keys of the page; what starts it.

// ---- Tabs

const parts = {};
const tabs = find("#tabs"),
  main = find("main");

function addTabs() {
  const head = find("#head-part");
  if (head) panel("head", "Head", null, () => ({ element: head, update: () => {} }));
  if (DATA.headFirst) {
    head.prepend(find("#about"));
    panels.unshift(panels.pop());
  }
  head?.remove();
  addDecisions();
  for (const each of panels) {
    each.tab = node(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${each.id}`,
        "aria-controls": `part-${each.id}`,
        "aria-selected": "false",
        tabindex: "-1",
        onclick: () => showPanel(each.id),
      },
      each.title,
      each.count === null ? null : node("span", { class: "n" }, each.count.toLocaleString("en")),
    );
    if (each.count === 0) each.tab.classList.add("none");
    each.box = node("section", {
      role: "tabpanel",
      id: `part-${each.id}`,
      "aria-labelledby": `tab-${each.id}`,
      hidden: true,
      class: "part",
    });
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
  try {
    history.replaceState(null, "", `#${chosen.id}`);
  } catch {
    /* some browsers refuse it for local files */
  }
}

// ---- The state, at the top

function showState() {
  const changes = decisions.size,
    text = find("#state");
  text.textContent = !changes
    ? "Nothing decided yet"
    : `${counted(changes, "decision")}, ${isExported() ? "exported" : "not exported"}`;
  text.className = changes && !isExported() ? "unsaved" : "";
  find("#storage").hidden = !storageFails;
  find("#undo").disabled = !done.length;
  find("#redo").disabled = !undone.length;
  find("#export").disabled = !changes;
  const shown = panels.find(({ box }) => !box.hidden);
  shown?.update();
}

addEventListener("beforeunload", (event) => {
  if (decisions.size && !isExported()) event.preventDefault();
});
addEventListener("storage", (event) => {
  if (event.key === STORAGE_KEY) {
    restore();
    showState();
  }
}); // another tab with this page
addEventListener("hashchange", () => showPanel(location.hash.slice(1)));

addEventListener("keydown", (event) => {
  const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName ?? "");
  const control = event.ctrlKey || event.metaKey,
    key = event.key.toLowerCase();
  if (control && !writing && key === "z") (event.shiftKey ? redo : undo)();
  else if (control && !writing && key === "y") redo();
  else if (!control && !writing && event.key === "?") find("#help").showModal();
  else if (!control && !writing && event.key === "/" && !find("dialog[open]"))
    find(".part:not([hidden]) input[type=search]")?.focus();
  else return;
  event.preventDefault();
});

find("#state-button").addEventListener("click", () => showPanel("decisions", { focus: true }));
find("#undo").addEventListener("click", undo);
find("#redo").addEventListener("click", redo);
find("#export").addEventListener("click", exportDecisions);
find("#help-button").addEventListener("click", () => find("#help").showModal());
document.body.append(
  node(
    "datalist",
    { id: "label-names" },
    LABEL_NAMES.map((name) => node("option", { value: name })),
  ),
);

restore();
addOverview();
addMap();
addGalleries();
addTabs();
onDecision(showState);
showState();
showPanel(location.hash.slice(1));
document.body.classList.add("ready");
