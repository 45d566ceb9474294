// Grid, sheet and walk: pictures by model, version, label and seed.

import { address, imagePath, Pictures, Problem, save, send, session } from "./api.js";
import { pick } from "./catalogue.js";
import { $, copy, h, say } from "./dom.js";
import { go, here, note } from "./route.js";

const SEEDS = 2 ** 53;
const ROLLED = 1e6; // seeds that are drawn here stay short enough to be read out
const MOST = { grid: 256, sheet: 32 };
const USUAL = { grid: 40, sheet: 10, frames: 24 };
const THUMBNAILS = 20;
const CRISP_BELOW = 128;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let refuse;
let loading; // the pictures of the view
let thumbs; // those of the labels
let current; // {view, card, label, ...}: what is shown
let chosen; // what the panel shows: {path, name}
let drawnLabels = "";

/** Tile `i` of a request: seeds go on from the first, and around. */
export const seedAt = (seed, i) => (i >= SEEDS - seed ? i - (SEEDS - seed) : seed + i);

const roll = () => crypto.getRandomValues(new Uint32Array(1))[0] % ROLLED;

function number(text, name, low, high) {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : NaN;
  if (value >= low && value <= high) return value;
  throw new Problem(422, `${name} is a whole number from ${low} to ${high === SEEDS - 1 ? "2^53 - 1" : high}, not “${text}”.`);
}

// In whole hundredths; nothing for 1, which leaves pictures as they are.
function truncationOf(asked) {
  if (asked === undefined || asked === "" || Number(asked) === 1) return undefined;
  if (/^0?\.[0-9]{1,2}$/.test(asked) && Number(asked) > 0) return String(Number(asked));
  throw new Problem(422, `Truncation is a number above 0, up to 1, with two digits, not “${asked}”.`);
}

export function begin(onProblem) {
  refuse = onProblem;
  const form = $("controls");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  $("model").addEventListener("change", () => go(here().view, { ...fields(), model: $("model").value, version: "", label: "" }));
  $("version").addEventListener("change", apply);
  $("labels").addEventListener("change", apply);
  for (const id of ["seed", "n", "from", "to", "frames", "format", "truncation"]) {
    $(id).addEventListener("change", () => $(id).reportValidity() && apply());
  }
  $("roll").addEventListener("click", () => {
    const seed = roll();
    go(here().view, { ...fields(), ...(here().view === "walk" ? { seed, to: roll() } : { seed }) });
    say(`Seed ${seed}`);
  });
  $("copy").addEventListener("click", copyAddress);
  $("save").addEventListener("click", (event) => {
    if (!session.guarded && chosen.kind !== "walk") return;
    event.preventDefault();
    save(chosen.path, chosen.file).catch(refuse);
  });
  $("open").addEventListener("click", (event) => {
    if (!session.guarded) return;
    // A new tab cannot send the token; what was fetched with it can be opened.
    event.preventDefault();
    window.open($("chosen-image").src, "_blank", "noopener");
  });
  $("canvas").addEventListener("click", (event) => onTile(event.target));
  $("canvas").addEventListener("keydown", onKey);
  let width = 0;
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (width && now && now !== width) fit();
    width = now;
  }).observe($("canvas"));
  calm.addEventListener("change", () => current?.view === "walk" && go("walk", here().parameters));
}

function fields() {
  const { view, parameters } = here();
  const label = document.querySelector("#labels input:checked")?.value ?? "";
  const common = { model: $("model").value, version: $("version").value, label: view === "sheet" ? parameters.label : label, truncation: $("truncation").value };
  if (view === "walk") {
    return { ...common, seed: $("from").value, to: $("to").value, frames: $("frames").value, format: $("format").value };
  }
  return { ...common, seed: $("seed").value, n: $("n").value };
}

const apply = () => go(here().view, fields());

export function leave() {
  loading?.close();
  thumbs?.close();
  loading = thumbs = current = undefined;
  drawnLabels = "";
  $("canvas").replaceChildren();
}

export async function show(view, asked, still) {
  const first = loading === undefined;
  loading?.close();
  loading = new Pictures(refuse);
  if (view !== current?.view) $("canvas").replaceChildren();
  arrange(view);
  const { known, model, version, card } = await pick(asked.model, asked.version);
  if (!still()) return;

  const want = { model: model.name, version, label: labelOf(asked.label, card, view) };
  fillModels(known, model, version);
  fillLabels(card, want.label, view);
  $("seed").value = $("from").value = asked.seed ?? "";
  want.seed = asked.seed === undefined ? roll() : number(asked.seed, "The seed", 0, SEEDS - 1);
  if (view === "walk") {
    want.to = asked.to === undefined ? seedAt(want.seed, 1) : number(asked.to, "The second seed", 0, SEEDS - 1);
    want.frames = number(asked.frames ?? String(USUAL.frames), "The number of frames", 2, 120);
    want.format = asked.format === "gif" ? "gif" : "webp";
  } else {
    want.n = number(asked.n ?? String(USUAL[view]), "The number", 1, MOST[view]);
  }
  want.truncation = truncationOf(asked.truncation);
  note(view, want);
  current = { ...want, view, card };
  $("seed").value = $("from").value = want.seed;
  $("truncation").value = want.truncation ?? "";
  for (const name of ["n", "to", "frames", "format"]) if (name in want) $(name).value = want[name];
  $("n").max = MOST[view];
  showThumbs();
  await { grid: drawGrid, sheet: drawSheet, walk: drawWalk }[view](still, first);
}

// Where a name is a whole number, a number is a name and never an index.
const numbered = (card) => card.classes.some((name) => /^[+-]?\p{Nd}+$/u.test(name));
const spoken = (card, index) => (numbered(card) ? card.classes[index] : String(index));

// A list with commas, or the parameter once a label where names have commas.
const listed = (labels) => (labels.some((label) => label.includes(",")) ? labels : labels.join(","));

function labelOf(asked, card, view) {
  if (!card.conditional) return "-";
  const fallback = view === "walk" ? spoken(card, 0) : "all";
  if (asked === undefined || asked === "" || asked === "-" || asked === "all") return fallback;
  const index = card.classes.findIndex((name) => name.normalize() === asked.normalize());
  if (index >= 0) return spoken(card, index);
  if (!numbered(card) && /^[0-9]+$/.test(asked) && Number(asked) < card.classes.length) return String(Number(asked));
  throw new Problem(422, `${card.name} has no label “${asked}”.`);
}

function arrange(view) {
  const titles = { grid: "Grid", sheet: "Sheet of labels by seeds", walk: "Walk between two seeds" };
  $("pictures-title").textContent = titles[view];
  for (const field of document.querySelectorAll("#controls [data-for]")) {
    field.hidden = !field.dataset.for.split(" ").includes(view);
    for (const input of field.querySelectorAll("input, select")) input.disabled = field.hidden;
  }
  $("n-name").textContent = view === "sheet" ? "Seeds" : "Images";
  $("seed-name").textContent = view === "sheet" ? "First seed" : "Seed";
}

function fillModels(known, model, version) {
  $("model").replaceChildren(
    ...known.map((one) => h("option", { value: one.name, disabled: !one.live && !one.versions.length }, one.name)),
  );
  $("model").value = model.name;
  $("version").replaceChildren(
    ...model.versions.map((one) => h("option", { value: one }, one === model.live ? `${one} (live)` : `${one}`)).reverse(),
  );
  $("version").value = version;
}

function fillLabels(card, label, view) {
  const box = $("labels");
  box.hidden = !card.conditional || view === "sheet";
  const key = `${card.name}/${card.version}/${view === "walk"}`;
  if (key !== drawnLabels) {
    drawnLabels = key;
    const chip = (value, ...inside) =>
      h("label", { class: "chip" }, h("input", { type: "radio", name: "label", value }), h("span", {}, ...inside));
    const pictured = card.classes.length <= THUMBNAILS && card.image.height <= CRISP_BELOW;
    const terse = card.classes.every((name) => name.length <= 4);
    box.querySelector(".chips").classList.toggle("terse", terse);
    box.querySelector(".chips").replaceChildren(
      ...(view === "walk" ? [] : [chip("all", "All")]),
      ...card.classes.map((name, index) =>
        chip(spoken(card, index), pictured ? h("img", { alt: "", width: 28, height: 28, "data-label": spoken(card, index) }) : "", h("b", {}, name)),
      ),
    );
  }
  const input = [...box.querySelectorAll("input")].find((one) => one.value === label);
  if (input) input.checked = true;
}

// A label looks as it does at this very seed.
function showThumbs() {
  thumbs?.close();
  thumbs = new Pictures(() => {});
  if ($("labels").hidden) return;
  for (const img of document.querySelectorAll("#labels img")) {
    thumbs.show(img, imagePath(current.model, current.version, img.dataset.label, current.seed, current.truncation));
  }
}

// ---- tiles ----

const named = (label) => (numbered(current.card) ? label : current.card.classes[label] ?? "");

function describe(label, seed) {
  return label === "-" ? `seed ${seed}` : `label ${named(label)}, seed ${seed}`;
}

// The picture itself is the button: so it can be dragged and saved as pictures can, and clicked and typed at.
function tile(label, seed) {
  const img = h("img", {
    class: current.card.image.height < CRISP_BELOW ? "tile crisp" : "tile",
    role: "button",
    tabindex: -1,
    alt: `Copy the address of ${describe(label, seed)}`,
    "data-label": label,
    "data-seed": seed,
    "data-path": imagePath(current.model, current.version, label, seed, current.truncation),
  });
  return { img, done: loading.show(img, img.dataset.path) };
}

const tiles = () => [...$("canvas").querySelectorAll("img.tile")];

// Whole multiples of a picture's size, so that each of its pixels is as large as the next.
function fit() {
  if (!current || current.view === "walk") return;
  const { label, card: { image } } = current;
  const room = $("canvas").clientWidth;
  const gap = 8;
  let columns;
  if (current.view === "sheet") {
    columns = current.n;
  } else {
    const least = current.n <= 4 ? 160 : current.n <= 16 ? 104 : current.n <= 64 ? 80 : 56;
    columns = Math.max(1, Math.min(current.n, Math.floor((room + gap) / (least + gap))));
    // With all labels in turn, whole rows of them read best.
    const classes = current.card.classes.length;
    if (label === "all" && columns > classes) columns -= columns % classes;
  }
  const taken = current.view === "sheet" ? 72 : 0;
  const per = Math.max(1, (room - taken - gap * (columns - 1)) / columns);
  const most = current.n <= 4 ? 280 : current.view === "sheet" ? 84 : 140;
  const wide = Math.min(per, most);
  // A screen of two dots a pixel has halves as well.
  const dots = devicePixelRatio;
  const scale = wide >= image.width ? Math.floor((wide / image.width) * dots) / dots : Math.max(wide, 28) / image.width;
  const canvas = $("canvas");
  canvas.style.setProperty("--columns", columns);
  canvas.style.setProperty("--tile", `${Math.floor(image.width * scale)}px`);
  for (const img of tiles()) {
    img.width = Math.floor(image.width * scale);
    img.height = Math.floor(image.height * scale);
  }
}

async function settle(made, still, first) {
  fit();
  const all = tiles();
  all[0].tabIndex = 0;
  choose(all[0]);
  $("canvas").setAttribute("aria-busy", "true");
  await Promise.all(made.map((one) => one.done));
  if (!still()) return;
  $("canvas").removeAttribute("aria-busy");
  const shownNow = all.filter((img) => !img.classList.contains("broken")).length;
  if (shownNow && !first) say(`${shownNow} ${shownNow === 1 ? "picture" : "pictures"} of ${current.model}, seed ${current.seed}`);
}

async function drawGrid(still, first) {
  const { card, label, seed, n } = current;
  const made = Array.from({ length: n }, (_, i) =>
    ({ label: label === "all" ? spoken(card, i % card.classes.length) : label, seed: seedAt(seed, i) }),
  ).map((one) => ({ ...one, ...tile(one.label, one.seed) }));
  const list = h("ul", { class: "tiles", "aria-label": "Pictures; arrow keys move, Enter copies the address" },
    made.map((one) =>
      h("li", {}, one.img,
        h("span", { class: "caption", "aria-hidden": "true", title: address(one.img.dataset.path) },
          one.label === "-" ? "" : h("b", {}, named(one.label)), String(one.seed)))),
  );
  $("canvas").replaceChildren(list);
  offer({ model: current.model, version: current.version, label: ["all", "-"].includes(label) ? "" : label, seed, n });
  await settle(made, still, first);
}

async function drawSheet(still, first) {
  const { card, seed, n } = current;
  const seeds = Array.from({ length: n }, (_, i) => seedAt(seed, i));
  const labels = card.conditional ? card.classes.map((_, index) => spoken(card, index)) : ["-"];
  const made = [];
  const put = (label, one) => {
    made.push(tile(label, one));
    return h("td", {}, made.at(-1).img);
  };
  const table = h("table", { class: "sheet" },
    h("caption", { class: "unseen" }, "Labels by seeds; arrow keys move, Enter copies the address"),
    h("thead", {}, h("tr", {}, h("td", {}), seeds.map((one) => h("th", { scope: "col", title: one }, h("span", {}, String(one)))))),
    h("tbody", {}, labels.map((label) =>
      h("tr", {}, h("th", { scope: "row" }, label === "-" ? "" : named(label)), seeds.map((one) => put(label, one))))),
  );
  $("canvas").replaceChildren(h("div", { class: "scroller", role: "region", "aria-label": "Sheet", tabindex: 0 }, table));
  const pairs = labels.flatMap((label) => seeds.map((one) => [label, one]));
  const few = pairs.length <= 256;
  offer(few && {
    model: current.model, version: current.version, columns: n,
    label: card.conditional ? listed(pairs.map(([label]) => label)) : "",
    seeds: pairs.map(([, one]) => one).join(","),
  });
  await settle(made, still, first);
}

// The same pictures in one file.
function offer(request) {
  $("downloads").replaceChildren();
  if (!request) return;
  const link = (format, text, more = {}) => {
    const path = address("generate", { ...request, truncation: current.truncation, ...more, format });
    const file = `${current.model}-${current.version}-${current.seed}.${format}`;
    const made = h("a", { href: path, download: file }, text);
    made.addEventListener("click", (event) => {
      if (!session.guarded) return;
      event.preventDefault();
      save(path, file).catch(refuse);
    });
    return made;
  };
  $("downloads").append("All of them as ", link("png", "one PNG", { scale: 2 }), ", ", link("zip", "ZIP"), ", ", link("npz", "NPZ"), " or ", link("json", "JSON"));
}

function choose(img) {
  for (const one of $("canvas").querySelectorAll("[aria-current]")) one.removeAttribute("aria-current");
  img.setAttribute("aria-current", "true");
  const { path, label, seed } = img.dataset;
  const file = `${current.model}-${current.version}-${label === "-" ? "" : `${named(label).replace(/[^\w.-]/g, "_")}-`}${seed}.png`;
  present({ kind: "picture", path, file }, describe(label, seed));
  const big = $("chosen-image");
  big.hidden = false;
  big.className = current.card.image.height < CRISP_BELOW ? "crisp" : "";
  const mirror = () => chosen.path === path && (big.src = img.src);
  if (img.src) mirror();
  img.addEventListener("load", mirror, { once: true });
}

function present(what, text) {
  chosen = what;
  $("chosen").hidden = false;
  $("chosen-name").textContent = text[0].toUpperCase() + text.slice(1);
  const url = address(what.path);
  $("address").textContent = url;
  $("open").href = url;
  $("save").href = url;
  $("save").download = what.file;
  $("save").setAttribute("aria-label", `Save ${what.file}`);
}

async function copyAddress() {
  const url = address(chosen.path);
  if (await copy(url)) return say(`Copied ${url}`);
  getSelection().selectAllChildren($("address"));
  say("The browser does not let this page copy: the address is selected, press Ctrl+C.");
}

function onTile(img) {
  if (!img.matches("img.tile")) return;
  for (const one of tiles()) one.tabIndex = one === img ? 0 : -1;
  choose(img);
  img.focus();
  copyAddress();
}

function onKey(event) {
  if (!event.target.matches("img.tile") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return onTile(event.target);
  }
  const all = tiles();
  const columns = Number($("canvas").style.getPropertyValue("--columns"));
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -Infinity, End: Infinity };
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const at = all.indexOf(event.target);
  const to = Number.isFinite(step) ? at + step : step < 0 ? 0 : all.length - 1;
  if (!all[to]) return;
  event.target.tabIndex = -1;
  all[to].tabIndex = 0;
  all[to].focus();
  choose(all[to]);
}

// ---- walk ----

async function drawWalk(still) {
  const { model, version, label, seed, to, frames, format, truncation, card } = current;
  const shape = card.image;
  const scale = Math.max(1, Math.floor(Math.min(280, $("canvas").clientWidth * 0.6) / shape.width));
  const crisp = shape.height < CRISP_BELOW ? "crisp" : "";
  const size = (factor) => ({ width: shape.width * factor, height: shape.height * factor });
  const end = (one) => {
    const img = h("img", { class: crisp, alt: describe(label, one), ...size(Math.max(1, Math.floor(scale / 3))) });
    loading.show(img, imagePath(model, version, label, one, truncation));
    return h("figure", {}, img, h("figcaption", {}, String(one)));
  };
  const stage = h("div", { class: "stage" });
  stage.style.setProperty("width", `${shape.width * scale}px`);
  stage.style.setProperty("height", `${shape.height * scale}px`);
  const button = h("button", { type: "button", "aria-pressed": "false" }, "Play");
  $("canvas").replaceChildren(
    h("div", { class: "walk" }, end(seed), h("figure", {}, stage, h("figcaption", {}, button)), end(to)),
  );
  $("downloads").replaceChildren();

  const path = address("morph", {
    model, version, label: label === "-" ? "" : label, from: seed, to, frames, format, truncation,
  });
  const text = `walk from seed ${seed} to ${to}, ${frames} frames`;
  present({ kind: "walk", path, file: `${model}-${version}-${seed}-${to}.${format}` }, text);
  $("chosen-image").hidden = true;

  const stand = h("img", { class: crisp, alt: describe(label, seed), ...size(scale) });
  loading.show(stand, imagePath(model, version, label, seed, truncation));
  stage.replaceChildren(stand);
  let moving;
  const play = async () => {
    button.disabled = true;
    stage.setAttribute("aria-busy", "true");
    try {
      if (!moving) {
        const blob = await (await send(path, { signal: loading.signal })).blob();
        if (!still()) return;
        moving = h("img", { class: crisp, alt: `An animated ${text}`, ...size(scale), src: loading.keep(blob) });
        await moving.decode();
      }
      stage.replaceChildren(moving);
      turned(true);
      $("chosen-image").src = moving.src;
    } catch (error) {
      if (error.name === "AbortError") return;
      throw error.status === 404 && !/model|version/.test(error.message)
        ? new Problem(404, "This server has no walks yet: it answers 404 at /morph.")
        : error;
    } finally {
      button.disabled = false;
      stage.removeAttribute("aria-busy");
    }
  };
  const turned = (on) => {
    button.textContent = on ? "Stop" : "Play";
    button.setAttribute("aria-pressed", String(on));
  };
  button.addEventListener("click", () => {
    if (moving?.isConnected) {
      stage.replaceChildren(stand);
      turned(false);
    } else {
      play().catch(refuse);
    }
  });
  // Who prefers no motion starts it.
  if (!calm.matches) await play();
}
