// Jobs: start, watch, cancel. Progress comes as server-sent events, curves are drawn from it. A job's `progress` is what
// the worker makes of the events of ganserve/events.py: the keys of "progress" as they are, but `step` (of the job),
// `training_step`, `training_steps`, and `images_left`; of "samples" `samples` (its path) and `metrics`; of "warning"
// `warnings`, the last ten. `curve` has what a judge saw at each snapshot so far.

import { events, Pictures, read, send } from "./api.js";
import { all } from "./catalogue.js";
import { curves } from "./chart.js";
import { $, complain, duration, figure, h, moment, say, short, whole } from "./dom.js";
import { go, here, link } from "./route.js";

const LOOK_AGAIN = 4000;
const MOST_POINTS = 1500;
const ENDED = ["succeeded", "failed", "cancelled"];
const NO_WORKER = "No worker is running: jobs wait until one starts (make worker).";
const STEPS = ["train", "export", "evaluate", "publish", "promote"];

// In words, where the recipe's own name is a short one.
const WORDS = {
  batch: "Batch size",
  width: "Width of the networks",
  lr_g: "Learning rate, generator",
  lr_d: "Learning rate, discriminator",
  d_steps: "Steps of the discriminator",
  g_steps: "Steps of the generator",
  ema: "Averaging of weights",
  decay_from: "Learning rates fall from",
  mirror: "Every other picture mirrored (1) or none (0)",
};

// What the judge saw at snapshots: the curve of a job's progress.
const JUDGED = ["label_accuracy", "recall", "coverage"];

let refuse;
let watching; // {id, stop}
let timer;
let recipes;
let pictures;
let workers = [];

export function begin(onProblem) {
  refuse = onProblem;
  const form = $("job-form");
  form.addEventListener("submit", start);
  form.elements.recipe.addEventListener("change", explain);
  // What is wrong must be seen, and a closed part cannot take the focus. Does not bubble, so it is caught.
  $("overrides").addEventListener("invalid", () => ($("overrides").open = true), { capture: true });
}

export function leave() {
  unwatch();
  clearTimeout(timer);
}

function unwatch() {
  watching?.stop.abort();
  pictures?.close();
  watching = pictures = undefined;
  $("job").hidden = true;
}

export async function show(_view, asked, still) {
  await prepare();
  await list();
  if (!still()) return;
  if (asked.id !== watching?.id) {
    unwatch();
    if (asked.id) watch(asked.id).catch((error) => error.name === "AbortError" || refuse(error));
  }
}

async function prepare() {
  const form = $("job-form").elements;
  const [models, kept] = await Promise.all([all({ fresh: true }), read("datasets")]);
  $("model-names").replaceChildren(...models.map((model) => h("option", { value: model.name })));
  $("dataset-names").replaceChildren(...[...kept.uploads.map((one) => one.name), ...kept.built_in].map((value) => h("option", { value })));
  if (recipes) return;
  recipes = await read("page/recipes.json");
  form.recipe.replaceChildren(
    ...Object.entries(recipes).map(([name, recipe]) => h("option", { value: name }, `${name}${recipe.conditional ? " (with labels)" : ""}`)),
  );
  form.recipe.value = "projgan" in recipes ? "projgan" : form.recipe.value;
  form.dataset.value ||= kept.uploads[0]?.name ?? kept.built_in[0] ?? "";
  explain();
}

function explain() {
  const form = $("job-form").elements;
  const recipe = recipes[form.recipe.value];
  $("recipe-help").textContent = recipe.description;
  form.images.value = recipe.images;
  const given = overrides();
  $("overrides").querySelector(".pair").replaceChildren(
    ...Object.entries(recipe.overrides).map(([name, bound]) => h("label", {}, words(name), " ", range(bound), field(name, bound, given[name]))),
  );
}

const words = (name) => WORDS[name] ?? sentence(name.replaceAll("_", " "));
const range = ({ min, max }) => h("small", {}, `(${min} to ${max})`);

// Named apart from the form's own fields, so that a recipe may call its numbers as it likes.
function field(name, { type, min, max, default: usual }, value) {
  return h("input", { name: `overrides.${name}`, type: "number", min, max, step: type === "int" ? 1 : "any", placeholder: usual, value });
}

function overrides() {
  const filled = [...$("overrides").querySelectorAll("input")].filter((input) => input.value !== "");
  return Object.fromEntries(filled.map((input) => [input.name.slice("overrides.".length), Number(input.value)]));
}

async function start(event) {
  event.preventDefault();
  const form = event.target;
  const field = (name) => form.elements[name].value.trim();
  const problem = form.querySelector(".form-problem");
  problem.textContent = "";
  const json = { model: field("model"), recipe: field("recipe"), dataset: field("dataset"), images: Number(field("images")), init: field("init"), promote: field("promote") };
  if (field("seed")) json.seed = Number(field("seed"));
  json.overrides = overrides();
  const button = form.querySelector("button.primary");
  button.disabled = true;
  try {
    // The key makes a second click, or a broken connection, the same job.
    const key = [...crypto.getRandomValues(new Uint32Array(4))].map((word) => word.toString(16)).join("-");
    const job = await (await send("jobs", { method: "POST", json, headers: { "Idempotency-Key": key } })).json();
    say(`Queued.${job.note ? ` ${sentence(job.note)}` : ""}`);
    await go("jobs", { id: job.id });
  } catch (error) {
    problem.textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

async function list() {
  clearTimeout(timer);
  const page = await read("jobs?limit=50");
  const { view, parameters } = here();
  if (view !== "jobs") return;
  const changed = workers.length !== page.workers.length;
  workers = page.workers;
  if (changed) watching?.redraw?.();
  $("workers").textContent = page.workers.length ? `Working: ${page.workers.join(", ")}.` : NO_WORKER;
  const items = page.jobs.map((job) =>
    h("li", {}, h("a", { href: link("jobs", { id: job.id }), "aria-current": job.id === parameters.id ? "true" : undefined },
      h("b", {}, job.request.model), h("span", { class: "hint" }, ` ${job.request.recipe} on ${job.request.dataset}`), badge(job.state),
      h("span", { class: "hint when" }, moment(job.created_at)))),
  );
  // Nothing is replaced under the finger of who is about to press it.
  const told = JSON.stringify(page.jobs.map((job) => [job.id, job.state])) + parameters.id;
  if ($("job-list").dataset.told !== told) {
    $("job-list").dataset.told = told;
    const focused = $("job-list").contains(document.activeElement) ? document.activeElement.hash : "";
    $("job-list").replaceChildren(...(items.length ? items : [h("li", { class: "hint" }, "No job yet.")]));
    if (focused) [...$("job-list").querySelectorAll("a")].find((one) => one.hash === focused)?.focus();
  }
  timer = setTimeout(() => (document.hidden ? later() : list().catch(refuse)), LOOK_AGAIN);
}

const later = () => document.addEventListener("visibilitychange", () => here().view === "jobs" && list().catch(refuse), { once: true });

const badge = (state) => h("span", { class: `badge state ${state}` }, state);

// ---- one job ----

async function watch(id) {
  const stop = new AbortController();
  const mine = { id, stop };
  watching = mine;
  pictures = new Pictures(() => {});
  const points = remembered(id);
  const parts = frame();
  let last = "";
  while (!stop.signal.aborted) {
    try {
      for await (const job of events(`jobs/${encodeURIComponent(id)}/events`, stop.signal)) {
        if (watching !== mine) return;
        take(points, job.progress, id);
        mine.redraw = () => draw(parts, job, points);
        mine.redraw();
        if (last && last !== job.state) {
          say(`The job is ${job.state}.`);
          list().catch(refuse);
        }
        last = job.state;
        if (ENDED.includes(job.state)) return;
      }
    } catch (error) {
      if (error.status) throw error;
      if (error.name === "AbortError") return;
    }
    // The connection broke, or the server was changed: ask again.
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

// The service tells what is now; what was, this tab remembers, a reload included.
function remembered(id) {
  try {
    return JSON.parse(sessionStorage.getItem(`ganserve.job.${id}`)) ?? [];
  } catch {
    return [];
  }
}

function take(points, progress, id) {
  if (!progress || !Number.isFinite(progress.images) || progress.images <= (points.at(-1)?.images ?? -1)) return;
  points.push({ images: progress.images, loss_d: progress.loss_d, loss_g: progress.loss_g });
  if (points.length > MOST_POINTS) points.splice(0, points.length, ...points.filter((_, i) => i % 2 === 0));
  try {
    sessionStorage.setItem(`ganserve.job.${id}`, JSON.stringify(points));
  } catch {
    // A full store costs the memory of the curves, nothing else.
  }
}

function frame() {
  const parts = Object.fromEntries(["head", "bar", "note", "chart", "samples", "facts", "actions"].map((name) => [name, h("div", { class: `job-${name}` })]));
  $("job").replaceChildren(...Object.values(parts));
  $("job").hidden = false;
  return parts;
}

function draw(parts, job, points) {
  const { request, progress } = job;
  parts.head.replaceChildren(
    h("h2", { id: "job-title" }, `${request.model} `, badge(job.state)),
    h("p", { class: "hint" }, `${request.recipe} on ${request.dataset}, ${short(request.images)} images to see, asked for ${moment(job.created_at)}`),
  );
  parts.bar.replaceChildren(...bar(job));
  parts.note.replaceChildren(
    ...(job.error ? [h("p", { class: "notice problem" }, job.error)] : []),
    ...(job.state === "queued" && !workers.length ? [h("p", { class: "notice" }, NO_WORKER)] : []),
    ...(progress?.warnings ?? []).map((text) => h("p", { class: "notice" }, String(text))),
  );
  if (progress || points.length) parts.chart.replaceChildren(...judged(progress?.curve ?? []), curves(points, ["loss_d", "loss_g"]));
  drawSamples(parts.samples, job);
  parts.facts.replaceChildren(facts(job));
  parts.actions.replaceChildren(...actions(job, parts));
}

function judged(curve) {
  const measured = (name) => curve.some((point) => Number.isFinite(point[name]));
  const shares = JUDGED.filter(measured);
  const distance = ["frechet_ratio", "score"].find(measured);
  return [shares, distance ? [distance] : []].filter((names) => names.length && curve.length > 1).map((names) => curves(curve, names));
}

function bar(job) {
  if (job.state === "queued" || !job.progress) return [];
  const { images, images_total: total, images_per_second: rate, seconds_left: left } = job.progress;
  const at = STEPS.indexOf(job.step);
  const steps = h("ol", { class: "steps" }, STEPS.map((step, i) =>
    h("li", { class: job.state === "succeeded" || i < at ? "done" : i === at ? "now" : "", "aria-current": i === at ? "step" : undefined }, step)));
  if (!total) return [steps];
  const words = [`${short(images)} of ${short(total)} images`];
  if (rate) words.push(`${whole(Math.round(rate))} a second`);
  if (Number.isFinite(left) && !ENDED.includes(job.state)) words.push(`${duration(left)} left`);
  const share = h("progress", { max: total, value: images, "aria-label": "Training" });
  return [steps, share, h("p", { class: "hint" }, words.join(" · "))];
}

// A new sheet is asked for when the job names one, and stays until its successor is there.
async function drawSamples(place, job) {
  const name = job.progress?.samples;
  if (!name || place.dataset.sheet === name) return;
  place.dataset.sheet = name;
  try {
    const blob = await (await send(`jobs/${encodeURIComponent(job.id)}/samples.png`, { signal: pictures.signal })).blob();
    const img = h("img", { class: "samples", alt: "What the generator makes now", src: pictures.keep(blob) });
    await img.decode();
    if (place.dataset.sheet === name) place.replaceChildren(img);
  } catch (error) {
    if (error.name !== "AbortError") delete place.dataset.sheet;
  }
}

function facts(job) {
  const rows = { Job: job.id };
  if (job.worker) rows.Worker = job.worker;
  if (job.started_at) rows.Started = moment(job.started_at);
  if (job.finished_at) rows.Ended = moment(job.finished_at);
  if (job.request.seed !== undefined) rows.Seed = String(job.request.seed);
  for (const [name, value] of Object.entries(job.request.overrides ?? {})) rows[words(name)] = String(value);
  const result = job.result ?? {};
  if (result.version) rows.Published = `version ${result.version}${result.promoted ? ", live" : result.promotion ? `, not live: ${result.promotion}` : ""}`;
  for (const [name, value] of Object.entries(job.progress?.metrics ?? {})) {
    if (typeof value === "number") rows[sentence(name.replaceAll("_", " "))] = figure(value);
  }
  return h("dl", { class: "facts" }, Object.entries(rows).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
}

function actions(job, parts) {
  const version = job.result?.version;
  const shown = version ? [h("a", { class: "button", href: link("grid", { model: job.request.model, version }) }, "Show its pictures")] : [];
  if (ENDED.includes(job.state)) return shown;
  // The button lives on while the rest is drawn anew, so that the keyboard stays on it.
  const [kept, early] = parts.actions.querySelectorAll("button");
  const trains = job.state === "running" && job.step === "train" && job.progress?.curve?.length;
  return [
    kept ?? h("button", { type: "button", onclick: (event) => cancel(event.target, job.id) }, "Cancel the job"),
    ...(trains ? [early ?? h("button", { type: "button", onclick: (event) => cancel(event.target, job.id, true) }, "Finish now with the best snapshot")] : []),
  ];
}

async function cancel(button, id, keep = false) {
  button.disabled = true;
  complain(null);
  try {
    await send(`jobs/${encodeURIComponent(id)}${keep ? "?keep=true" : ""}`, { method: "DELETE" });
    say(keep ? "The training ends; its best snapshot is exported." : "The job is being cancelled.");
    await list();
  } catch (error) {
    button.disabled = false;
    refuse(error);
  }
}
