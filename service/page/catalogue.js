// Models and their cards, asked for once.

import { Problem, read } from "./api.js";

let models;
const cards = new Map();

/** Every model's summary, by name. */
export function all({ fresh = false } = {}) {
  if (fresh || !models) {
    models = read("models");
    models.catch(() => (models = undefined));
  }
  return models;
}

/** A version's card; it never changes. */
export function card(name, version) {
  const key = `${name}/${version}`;
  if (!cards.has(key)) {
    const asked = read(`models/${encodeURIComponent(name)}/${version}`);
    asked.catch(() => cards.delete(key));
    cards.set(key, asked);
  }
  return cards.get(key);
}

export function forget() {
  models = undefined;
  cards.clear();
}

/** The model and version that an address names, or those that are served when it names none. */
export async function pick(name, version) {
  const named = (models) => models.find((one) => one.name === name);
  const has = (model) => model && (!version || model.versions.includes(Number(version)));
  let known = await all();
  // It may have been published since they were asked for, by a job that was watched here.
  if (name && !has(named(known))) known = await all({ fresh: true });
  const served = known.filter((model) => model.live);
  const model = name ? named(known) : (served.find((one) => one.default) ?? served[0]);
  if (!model) {
    throw new Problem(404, name ? `There is no model ${name} here.` : "No model can be served yet: train one, or publish one.");
  }
  const chosen = version ? Number(version) : (model.live ?? model.versions.at(-1));
  if (!model.versions.includes(chosen)) {
    throw new Problem(404, `${model.name} has no version ${version}: there is ${model.versions.join(", ")}.`);
  }
  return { known, model, version: chosen, card: await card(model.name, chosen) };
}
