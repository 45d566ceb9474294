// The page: a label, a seed and a number make a grid of pictures. Its address is in the fragment.

import { open } from "./generator.js";
import { png } from "./picture.js";

const MOST = 256;
const SEEDS = 2 ** 53;
const $ = (id) => document.getElementById(id);
const form = $("form");

let generator;
let turn = 0;

async function start() {
  generator = await open();
  const { name, version, classes } = generator.model;
  document.title = `${name} ${version}`;
  $("name").textContent = `${name}, version ${version}`;
  $("labels").hidden = !classes.length;
  classes.forEach((label, index) => form.label.append(new Option(label, String(index))));
  read();
  form.addEventListener("input", write);
  addEventListener("hashchange", () => read() || draw());
  await draw();
  const proven = await generator.prove();
  $("proof").textContent =
    proven === null
      ? "This browser computes no digest for a page that came over plain HTTP: nothing is proven here."
      : proven
        ? "Proven: 256 addresses give the promised bytes in this browser."
        : "This browser gives other bytes than the model promises. Please tell its makers.";
  $("proof").className = proven === false ? "bad" : "";
}

/** The fields from the fragment. */
function read() {
  const told = new URLSearchParams(location.hash.slice(1));
  for (const field of ["label", "seed", "n"]) if (told.has(field)) form[field].value = told.get(field);
}

/** The fragment from the fields, which draws. */
function write() {
  const fields = generator.model.classes.length ? ["label", "seed", "n"] : ["seed", "n"];
  if (!form.checkValidity()) return;
  location.replace(`#${new URLSearchParams(fields.map((field) => [field, form[field].value]))}`);
}

async function draw() {
  const [n, seed] = [Number(form.n.value), Number(form.seed.value)];
  const sound = Number.isInteger(n) && n >= 1 && n <= MOST && Number.isInteger(seed) && seed >= 0 && seed < SEEDS;
  const { classes, image, mark, name, version, sha256 } = generator.model;
  const chosen = form.label.value;
  if (!sound || (classes.length && !(chosen in classes || chosen === ""))) {
    return say(`Expected a whole seed below 2**53, 1 to ${MOST} images and a label of this model.`);
  }
  const mine = ++turn;
  // Beyond the last seed comes 0; no sum may pass 2**53, from where on numbers are no longer exact.
  const left = SEEDS - seed;
  const seeds = [...Array(n).keys()].map((i) => (i < left ? seed + i : i - left));
  const labels = seeds.map((_, i) => (chosen === "" ? i % Math.max(classes.length, 1) : Number(chosen)));
  const pixels = await generator.generate(labels, seeds);
  if (mine !== turn) return;
  const size = image.height * image.width * image.channels;
  const tiles = seeds.map(async (own, i) => {
    const address = `model=${name}&version=${version}&labels=${labels[i]}&seed=${own}&padding=0&graph=${sha256.slice(0, 16)}`;
    const picture = await png(pixels.subarray(i * size, (i + 1) * size), image, mark, address);
    const label = classes.length ? classes[labels[i]] : "-";
    const drawn = Object.assign(new Image(), { src: URL.createObjectURL(picture), alt: `${label}, seed ${own}` });
    drawn.title = `${name}/${version}/${label}/${own}`;
    const caption = Object.assign(document.createElement("figcaption"), { textContent: String(own) });
    const figure = document.createElement("figure");
    figure.append(drawn, caption);
    return figure;
  });
  const figures = await Promise.all(tiles);
  const before = [...$("grid").querySelectorAll("img")];
  if (mine !== turn) return;
  $("grid").replaceChildren(...figures);
  for (const gone of before) URL.revokeObjectURL(gone.src);
  say("");
}

function say(text) {
  $("problem").textContent = text;
}

start().catch((error) => say(`${error.message ?? error}: a page from a folder needs a web server, ` +
  "for instance python3 -m http.server"));
