"use strict";
const $ = (id) => document.getElementById(id);
let state = null, position = 0, busy = false, heat = false;

const matches = (item) => (!$("kind").value || item.kinds.includes($("kind").value))
  && (!$("class").value || item.label === $("class").value || item.suggested === $("class").value);
const shown = () => state.items.filter((item) => matches(item) && (!$("open").checked || !item.decision));
const current = () => shown()[position];

function fill(select, values) {
  for (const value of values) select.append(new Option(value, value));
}

function draw() {
  const items = shown(), item = items[Math.min(position, items.length - 1)];
  position = Math.max(0, Math.min(position, items.length - 1));
  $("bar").max = Math.max(1, state.items.length);
  $("bar").value = state.decided;
  $("progress").textContent = `${state.decided} of ${state.items.length} decided, ${items.length} shown`;
  $("undo").disabled = !state.can_undo;
  $("empty").hidden = Boolean(item);
  $("item").hidden = !item;
  document.title = `Review: ${state.decided} of ${state.items.length}`;
  if (!item) return;
  const source = `${heat && item.map ? "maps" : "images"}/${item.image}`;
  $("heat").hidden = !item.map;
  $("heat").setAttribute("aria-pressed", String(heat));
  $("heat").classList.toggle("chosen", heat);
  if ($("image").getAttribute("src") !== source) $("image").src = source;
  $("image").alt = heat && item.map ? `what looks like ${item.suggested}` : `photo labelled ${item.label}`;
  $("path").textContent = `${item.split} · ${item.path}`;
  $("label").textContent = item.label;
  $("suggested").textContent = item.suggested;
  $("suggestion").hidden = !item.suggested;
  $("relabel").disabled = !item.suggested;
  $("reasons").textContent = `${item.kinds.join(", ")}: ${item.reasons}`;
  const decision = item.decision;
  $("decision").textContent = decision ? `decided: ${decision.action}${decision.label ? ` as ${decision.label}` : ""}` : "";
  for (const action of ["keep", "relabel", "exclude"]) $(action).classList.toggle("chosen", decision?.action === action);
  $("other").value = "";
  $("nearTitle").hidden = !item.neighbours.length;
  $("near").replaceChildren(...item.neighbours.slice(0, 6).map((each) => {
    const figure = document.createElement("figure"), image = document.createElement("img"), caption = document.createElement("figcaption");
    image.src = `images/${each.image}`;
    image.alt = `similar photo labelled ${each.label}`;
    caption.textContent = `${each.label} (${each.split})`;
    figure.append(image, caption);
    return figure;
  }));
}

function fail(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

async function send(path, body) {
  if (busy) return null;
  busy = true;
  try {
    const answer = await fetch(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || answer.statusText);
    state = found;
    fail("");
    return found;
  } catch (error) {
    fail(`not saved: ${error.message}`);
    return null;
  } finally {
    busy = false;
  }
}

async function decide(action, label = "") {
  const item = current();
  if (!item || (action === "relabel" && !label)) return;
  if (await send("decide", {path: item.path, action, label})) {
    if (!$("open").checked) position += 1;
    draw();
  }
}

async function undo() {
  const found = await send("undo", {});
  if (!found) return;
  const find = () => shown().findIndex((item) => item.path === found.undone);
  if (find() < 0) { $("kind").value = ""; $("class").value = ""; }
  position = Math.max(0, find());
  draw();
}

function move(by) {
  position += by;
  draw();
}

function toggleHeat() {
  heat = !heat;
  draw();
}

$("heat").addEventListener("click", toggleHeat);
$("keep").addEventListener("click", () => decide("keep"));
$("relabel").addEventListener("click", () => decide("relabel", current()?.suggested));
$("exclude").addEventListener("click", () => decide("exclude"));
$("undo").addEventListener("click", undo);
$("back").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("other").addEventListener("change", () => { if (state.classes.includes($("other").value)) { decide("relabel", $("other").value); $("other").blur(); } });
for (const id of ["kind", "class", "open"]) $(id).addEventListener("change", () => { position = 0; draw(); });
$("image").addEventListener("error", () => { $("image").alt = "this photo cannot be read any more"; });
document.addEventListener("keydown", (event) => {
  if (!state || event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
  const keys = {k: () => decide("keep"), r: () => decide("relabel", current()?.suggested), x: () => decide("exclude"), u: undo,
    h: toggleHeat, l: () => $("other").focus(), arrowleft: () => move(-1), arrowright: () => move(1)};
  const act = keys[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
});

fetch("state").then((answer) => answer.json()).then((found) => {
  state = found;
  fill($("kind"), [...new Set(state.items.flatMap((item) => item.kinds))]);
  fill($("class"), [...new Set(state.items.flatMap((item) => [item.label, item.suggested]).filter(Boolean))].sort((a, b) => a.localeCompare(b, undefined, {numeric: true})));
  fill($("classes"), state.classes);
  draw();
}).catch((error) => fail(`the review cannot be read: ${error.message}`));
