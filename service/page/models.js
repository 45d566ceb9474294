// Model cards, and which version is live.

import { Pictures, save, send, session } from "./api.js";
import * as catalogue from "./catalogue.js";
import { $, bytes, figure, h, moment, say, short, whole } from "./dom.js";
import { go, here, link } from "./route.js";

// In the order of their weight; the arrow says which way is better.
const METRICS = {
  frechet_ratio: "Fréchet, times real data’s ↓",
  frechet: "Fréchet distance ↓",
  kid: "Kernel distance ↓",
  label_accuracy: "Label accuracy ↑",
  precision: "Precision ↑",
  recall: "Recall ↑",
  density: "Density ↑",
  coverage: "Coverage ↑",
  classifier_score: "Classifier score ↑",
  class_kl: "Class imbalance ↓",
  copied: "Copied from training ↓",
};

let refuse;
let loading;

export function begin(onProblem) {
  refuse = onProblem;
}

export function leave() {
  loading?.close();
  loading = undefined;
}

export async function show(_view, asked, still) {
  loading?.close();
  loading = new Pictures(refuse);
  const known = await catalogue.all({ fresh: true });
  const cards = await Promise.all(
    known.map((model) => {
      const version = asked.model === model.name && asked.version ? Number(asked.version) : (model.live ?? model.versions.at(-1));
      return catalogue.card(model.name, version).catch((error) => ({ version, error }));
    }),
  );
  if (!still()) return;
  const order = known.map((model, i) => [model, cards[i]]).sort(([a], [b]) => b.default - a.default);
  $("model-list").replaceChildren(
    ...(order.length ? order.map(([model, card]) => article(model, card)) : [h("p", {}, "There is no model here yet.")]),
  );
}

function article(model, card) {
  const id = `card-${model.name}`;
  const live = card.version === model.live;
  const head = h("header", {},
    h("h2", { id }, model.name),
    model.default ? h("span", { class: "badge" }, "default") : "",
    h("span", { class: live ? "badge good" : "badge" }, model.live ? `version ${model.live} live` : "none live"),
  );
  const warning = model.left_out ? h("p", { class: "notice problem" }, `Not served: ${model.left_out}`) : "";
  if (card.error) {
    return h("article", { class: "card panel", "aria-labelledby": id }, head, h("div", {}, warning || h("p", { class: "notice problem" }, card.error.message), versions(model, card)));
  }
  const sample = h("img", { class: "samples", loading: "lazy", alt: `Samples of ${model.name} version ${card.version}${card.conditional ? ", one row a class" : ""}` });
  loading.show(sample, `models/${encodeURIComponent(model.name)}/${card.version}/samples.png`);
  return h("article", { class: "card panel", "aria-labelledby": id }, head,
    h("div", {},
      h("a", { class: "picture", href: link("grid", { model: model.name, version: card.version }), "aria-label": `Show pictures of ${model.name} version ${card.version}` }, sample),
      facts(card)),
    h("div", {}, warning, ...measured(card), notes(card), versions(model, card)),
  );
}

function facts(card) {
  const { image } = card;
  const rows = {
    Recipe: card.recipe,
    After: card.source,
    "Trained on": card.dataset + (card.training.images ? `, ${short(card.training.images)} images seen` : ""),
    Makes: `${image.width} × ${image.height}, ${image.channels === 1 ? "grey" : "colour"}, ${card.conditional ? `${card.classes.length} labels` : "no labels"}`,
    Size: `${short(card.parameters)} parameters, ${bytes(card.file_bytes)}`,
    Published: moment(card.created_at),
  };
  return h("dl", { class: "facts" }, Object.entries(rows).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
}

// The last of the measurements made since it was published.
function measured(card) {
  const last = card.measures?.at(-1);
  const published = last && !Object.keys(card.metrics).length ? [] : [metrics(card.metrics, "Measured")];
  return last ? [...published, metrics(last, "Measured since")] : published;
}

function metrics(scores, title) {
  const told = Object.entries(METRICS).filter(([name]) => typeof scores[name] === "number");
  if (!told.length) return h("p", { class: "hint" }, "Not measured.");
  const of = scores.images ? `, over ${whole(scores.images)} pictures` : "";
  return h("table", { class: "metrics" },
    h("caption", {}, `${title}${of}`),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Metric"), h("th", { scope: "col" }, "This model"), h("th", { scope: "col" }, "Real data"))),
    h("tbody", {}, told.map(([name, text]) => {
      const real = scores[`${name}_real`];
      return h("tr", {}, h("th", { scope: "row" }, text), h("td", {}, figure(scores[name])), h("td", {}, typeof real === "number" ? figure(real) : "–"));
    })),
  );
}

const notes = (card) => (card.notes.length ? h("ul", { class: "notes" }, card.notes.map((text) => h("li", {}, text))) : "");

// A tab of its own cannot send the token; what was fetched with it is saved.
function report(model, card) {
  const path = `models/${encodeURIComponent(model.name)}/${card.version}/report`;
  return h("a", {
    class: "button", href: path, target: "_blank", rel: "noopener",
    onclick: (event) => {
      if (!session.guarded) return;
      event.preventDefault();
      save(path, `${model.name}-${card.version}-report.html`).catch(refuse);
    },
  }, "Report");
}

function versions(model, card) {
  const buttons = card.error ? [] : [report(model, card)];
  if (model.versions.length > 1) {
    const choice = h("select", { onchange: (event) => go("models", { model: model.name, version: event.target.value }) },
      model.versions.map((one) => h("option", { value: one, selected: one === card.version }, one === model.live ? `${one} (live)` : `${one}`)).reverse());
    buttons.push(h("label", { class: "inline" }, "Version ", choice));
  }
  if (session.role === "admin") {
    if (card.version !== model.live && !card.error) {
      buttons.push(h("button", { type: "button", class: "primary", onclick: (event) => promote(event, model, card.version) }, `Make version ${card.version} live`));
    }
    if (model.previous && model.previous !== card.version && model.versions.includes(model.previous)) {
      buttons.push(h("button", { type: "button", onclick: (event) => promote(event, model, model.previous) }, `Roll back to version ${model.previous}`));
    }
  }
  return buttons.length ? h("p", { class: "row" }, buttons) : "";
}

async function promote(event, model, version) {
  const path = `models/${encodeURIComponent(model.name)}`;
  event.target.disabled = true;
  try {
    const now = await send(path, { cache: "no-store" });
    const seen = await now.json();
    // Who looks at yesterday's page shall not undo today's change unknowingly.
    if (seen.live !== model.live) {
      say(`${model.name} has changed meanwhile: version ${seen.live} is live.`);
      return go("models", here().parameters);
    }
    await send(`${path}/live`, { method: "PUT", json: { version }, headers: { "If-Match": now.headers.get("ETag") } });
    await go("models", {});
    $(`card-${model.name}`)?.scrollIntoView({ block: "nearest" });
    say(`Version ${version} of ${model.name} is live.`);
  } catch (error) {
    event.target.disabled = false;
    refuse(error);
  }
}
