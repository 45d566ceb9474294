// Curves of what a training tells, as SVG.

import { figure, h, short, svg } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 220;
const EDGE = { left: 48, right: 12, top: 12, bottom: 28 };
const NAMES = {
  loss_d: "Discriminator’s loss",
  loss_g: "Generator’s loss",
  label_accuracy: "Labels a judge sees as asked",
  recall: "Recall",
  coverage: "Coverage",
  frechet_ratio: "Fréchet distance, in that of real pictures",
  score: "Fréchet distance of pixels",
};

/** Curves of `keys` over images seen; `points` are {images, ...}. */
export function curves(points, keys) {
  const values = points.flatMap((point) => keys.map((key) => point[key])).filter(Number.isFinite);
  if (values.length < 2) return h("p", { class: "hint" }, "The curves begin with the next measurements.");
  const [low, high] = padded(Math.min(...values), Math.max(...values));
  const first = points[0].images;
  const last = Math.max(points.at(-1).images, first + 1);
  const x = (images) => EDGE.left + ((images - first) / (last - first)) * (WIDTH - EDGE.left - EDGE.right);
  const y = (value) => EDGE.top + ((high - value) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom);

  const marks = ticks(low, high).map((value) =>
    svg("g", {},
      svg("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value), class: "rule" }),
      svg("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, figure(value))),
  );
  const lines = keys.map((key, i) =>
    svg("polyline", {
      class: `curve curve-${i}`,
      points: points.filter((p) => Number.isFinite(p[key])).map((p) => `${x(p.images).toFixed(1)},${y(p[key]).toFixed(1)}`).join(" "),
    }),
  );
  const now = points.at(-1);
  const told = keys.filter((key) => Number.isFinite(now[key])).map((key) => `${NAMES[key] ?? key} ${figure(now[key])}`).join(", ");
  return h("figure", { class: "chart" },
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Curves over ${short(last)} images seen; now ${told}` },
      marks, lines,
      svg("text", { x: EDGE.left, y: HEIGHT - 8 }, short(first)),
      svg("text", { x: WIDTH - EDGE.right, y: HEIGHT - 8, "text-anchor": "end" }, `${short(last)} images seen`)),
    h("figcaption", {}, keys.map((key, i) => h("span", { class: `key key-${i}` }, `${NAMES[key] ?? key} ${figure(now[key] ?? 0)}`))),
  );
}

function padded(low, high) {
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - room, high + room];
}

function ticks(low, high) {
  const raw = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(Number(value.toPrecision(6)));
  return found;
}
