// Data sets: upload, list, delete.

import { Pictures, read, send, upload } from "./api.js";
import { $, bytes, h, moment, say, whole } from "./dom.js";

let refuse;
let running;
let loading;

export function begin(onProblem) {
  refuse = onProblem;
  const form = $("upload");
  form.addEventListener("submit", put);
  form.elements.file.addEventListener("change", () => {
    const file = form.elements.file.files[0];
    // Most archives are called what they hold.
    if (file && !form.elements.name.value) form.elements.name.value = file.name.replace(/\.zip$/i, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  });
  $("upload-stop").addEventListener("click", () => running?.abort());
}

export function leave() {
  loading?.close();
  loading = undefined;
}

export async function show(_view, _asked, still) {
  const kept = await read("datasets");
  if (!still()) return;
  leave();
  loading = new Pictures(() => {});
  $("dataset-list").replaceChildren(
    kept.uploads.length ? table(kept.uploads) : h("p", { class: "hint" }, "Nothing has been uploaded yet."),
    h("p", { class: "hint" }, `Built in: ${kept.built_in.join(", ")}.`),
  );
}

function table(uploads) {
  const row = (one) => {
    const classes = Object.entries(one.classes);
    return h("li", {},
      h("h3", {}, one.name),
      h("p", { class: "hint" }, `${whole(one.images)} images in ${classes.length} classes, ${bytes(one.bytes)}, ${moment(one.created_at)}`),
      one.report && sample(one),
      one.report && h("ul", { class: "hint" }, told(one).map((line) => h("li", {}, line))),
      h("details", {}, h("summary", {}, "Classes"), h("p", {}, classes.map(([name, count]) => `${name} (${count})`).join(", "))),
      h("p", { class: "row" },
        h("a", { class: "button", href: "#/jobs" , onclick: () => ($("job-form").elements.dataset.value = one.name) }, "Train on it"),
        h("button", { type: "button", "aria-label": `Delete ${one.name}`, onclick: (event) => remove(event.target, one.name) }, "Delete")));
  };
  return h("ul", { class: "plain" }, uploads.map(row));
}

function sample(one) {
  const img = h("img", { class: "samples", loading: "lazy", alt: `One picture of each class of ${one.name}` });
  loading.show(img, `datasets/${encodeURIComponent(one.name)}/samples.png`, true);
  return img;
}

/** What the report says besides the counts, a line each. */
function told({ report, left_out: leftOut }) {
  const { least, median, largest } = report.edges;
  const lines = [`${report.channels === 3 ? "colour" : "grey"}, short edges from ${least} to ${largest} pixels, half of them ${median} or more`];
  if (report.duplicates) lines.push(`${whole(report.duplicates)} pictures are there more than once`);
  for (const [why, count] of Object.entries(report.skipped)) lines.push(`left out: ${whole(count)} ${why}`);
  for (const { file, reason } of leftOut.slice(0, 10)) lines.push(`${file} ${reason}`);
  return [...lines, ...report.notices];
}

async function put(event) {
  event.preventDefault();
  const form = event.target;
  const name = form.elements.name.value.trim();
  const problem = form.querySelector(".form-problem");
  const place = $("upload-progress");
  const button = form.querySelector("button.primary");
  problem.textContent = "";
  running = new AbortController();
  button.disabled = true;
  place.hidden = $("upload-stop").hidden = false;
  const progress = (share) => {
    place.firstElementChild.value = share * 100;
    place.lastElementChild.textContent = share < 1 ? `${Math.floor(share * 100)} %` : "sent; it is being checked";
  };
  progress(0);
  try {
    const kept = await upload(`datasets/${encodeURIComponent(name)}`, form.elements.file.files[0], { progress, signal: running.signal });
    form.reset();
    say(`${kept.name} is kept: ${whole(kept.images)} images in ${Object.keys(kept.classes).length} classes.`);
    await show("data", {}, () => true);
  } catch (error) {
    if (error.name === "AbortError") say("The upload was stopped; nothing of it is kept.");
    else {
      const places = error.errors?.filter((one) => one.file).slice(0, 10) ?? [];
      problem.replaceChildren(error.message, places.length > 1 ? h("ul", {}, places.map((one) => h("li", {}, `${one.file}: ${one.reason}`))) : "");
    }
  } finally {
    button.disabled = false;
    place.hidden = $("upload-stop").hidden = true;
  }
}

async function remove(button, name) {
  if (!confirm(`Delete the data set ${name}? Its images are gone then.`)) return;
  button.disabled = true;
  try {
    await send(`datasets/${encodeURIComponent(name)}`, { method: "DELETE" });
    say(`${name} is deleted.`);
    await show("data", {}, () => true);
  } catch (error) {
    button.disabled = false;
    refuse(error);
  }
}
