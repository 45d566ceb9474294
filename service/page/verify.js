// A picture beside what stands at its address.

import { address, Pictures, Problem, send } from "./api.js";
import { $, h, say, whole } from "./dom.js";

const MOST = 4 << 20;
const TITLES = { match: "Match", differs: "Differs", unmarked: "No address" };

let refuse;
let loading;
let turn = 0;

export function begin(onProblem) {
  refuse = onProblem;
  const form = $("verify-form");
  const { file } = form.elements;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    check(file.files[0]);
  });
  file.addEventListener("change", () => file.files[0] && check(file.files[0]));
  const drop = $("drop");
  const over = (event) => {
    event.preventDefault();
    drop.classList.toggle("over", event.type === "dragover");
  };
  for (const kind of ["dragover", "dragleave", "drop"]) drop.addEventListener(kind, over);
  drop.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    // The form holds it from now on, so that it can be verified again at another address.
    file.files = event.dataTransfer.files;
    check(file.files[0]);
  });
}

export function leave() {
  turn++;
  loading?.close();
  loading = undefined;
  $("verdict").hidden = true;
  $("verify-form").reset();
}

export async function show() {}

async function check(file) {
  const mine = ++turn;
  const problem = $("verify-form").querySelector(".form-problem");
  problem.textContent = "";
  loading?.close();
  loading = new Pictures(refuse);
  $("verdict").hidden = true;
  try {
    if (file.size > MOST) throw new Problem(413, `The picture has more than ${MOST >> 20} MiB.`);
    const query = queryOf($("verify-form").elements.address.value.trim());
    const answer = await send(address("verify") + (query && `?${query}`), { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    const told = await answer.json();
    if (mine === turn) tell(file, told);
  } catch (error) {
    if (mine === turn) problem.textContent = error.message;
  }
}

/** The query of an address that was copied here: a picture's, a grid's, or a query itself. */
export function queryOf(text) {
  const path = text.replace(/^[a-z]+:\/\/[^/]*/i, "");
  const found = /\/?images\/([^/?]+)\/(\d+)\/(.+)\/(\d+)\.png(?:\?(.*))?$/.exec(path);
  if (!found) return path.replace(/^.*generate\?/, "").replace(/^\?/, "");
  const [model, version, label, seed] = found.slice(1, 5).map(decodeURIComponent);
  return `${new URLSearchParams({ model, version, label, seed, padding: 0 })}${found[5] ? `&${found[5]}` : ""}`;
}

function tell(file, told) {
  const good = told.verdict === "match";
  const mine = h("img", { class: "crisp", alt: "The picture that was sent", src: loading.keep(file) });
  const figures = [h("figure", {}, mine, h("figcaption", {}, "This picture"))];
  if (told.address) {
    const there = h("img", { class: "crisp", alt: "What stands at the address" });
    loading.show(there, told.address.replace(/^\//, ""));
    figures.push(h("figure", {}, there, h("figcaption", {}, "At its address")));
  }
  const words = { match: told.exact ? "Every pixel is that of the address." : "It is the picture of the address.", differs: `${whole(told.differing_pixels)} ${told.differing_pixels === 1 ? "pixel is" : "pixels are"} not those of the address.`, unmarked: "" };
  $("verdict").replaceChildren(
    h("h2", { id: "verdict-title" }, h("span", { class: good ? "badge good" : "badge" }, TITLES[told.verdict])),
    h("p", {}, [words[told.verdict], told.note && `${told.note[0].toUpperCase()}${told.note.slice(1)}.`].filter(Boolean).join(" ")),
    h("div", { class: "beside" }, figures),
    told.address ? h("p", { class: "address" }, h("code", { tabindex: 0, "aria-label": "Address of the picture" }, address(told.address.replace(/^\//, "")))) : "",
  );
  $("verdict").hidden = false;
  say(`${TITLES[told.verdict]}. ${words[told.verdict]}`);
}
