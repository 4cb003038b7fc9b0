"use strict";
const at = (id) => document.getElementById(id);
const headers = () => (at("token").value ? { Authorization: `Bearer ${at("token").value}` } : {});
const add = (parent, name, text = "") => {
  const element = parent.appendChild(document.createElement(name));
  element.textContent = text;
  return element;
};
const percent = (p) => `${(100 * p).toFixed(1)} %`;

async function describe() {
  const answer = await fetch("model", { headers: headers() });
  if (answer.status === 401) {
    at("token-label").hidden = false;
    at("model").textContent = "This service expects a token.";
    return;
  }
  const model = await answer.json();
  const { accuracy, interval, n, split } = model.report ?? {};
  const measured = accuracy === undefined || !interval ? "" :
    ` Accuracy ${percent(accuracy)} (95 % interval ${percent(interval[0])} to ${percent(interval[1])}) on ${n} ${n === 1 ? "image" : "images"} of ${split}.`;
  const count = { classification: " classes", multilabel: " labels" }[model.task];
  const classes = count ? `, ${model.classes.length}${count}` : "";
  at("model").textContent = `${model.name}: ${model.kind} on ${model.backbone}${classes}.${measured}`;
}

function show(prediction, file) {
  const item = at("results").appendChild(document.createElement("li"));
  const image = item.appendChild(document.createElement("img"));
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => { image.hidden = true; };
  const text = add(item, "div");
  add(text, "b", file.name);
  if (prediction.error) {
    add(text, "p", prediction.error).className = "error";
    return;
  }
  if (prediction.value !== undefined) add(text, "p", String(prediction.value));
  if (prediction.labels) add(text, "p", prediction.labels.join(", ") || "no label");
  if (prediction.reason) add(text, "p", prediction.reason);
  for (const { label, probability } of prediction.top ?? []) {
    const meter = add(add(text, "div", `${label} ${percent(probability)}`), "meter");
    meter.value = probability;
    meter.setAttribute("aria-label", label);
  }
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const files = [...at("files").files], form = new FormData();
  for (const file of files) form.append("files", file);
  at("results").replaceChildren();
  at("status").className = "";
  at("status").textContent = "Predicting…";
  try {
    const answer = await fetch("predict?top=5", { method: "POST", body: form, headers: headers() });
    const found = await answer.json();
    at("status").textContent = found.error ?? "";
    at("status").className = found.error ? "error" : "";
    (found.predictions ?? []).forEach((prediction, number) => show(prediction, files[number]));
    if (answer.ok) describe();
  } catch (error) {
    at("status").className = "error";
    at("status").textContent = `The service cannot be reached (${error.message}).`;
  }
});
at("token").addEventListener("change", describe);
describe();
