// Answers addresses in this browser: the same bytes as any server of the same model gives.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { latents } from "./latents.js";

const ROWS = 32;
const PROVEN = 256;

let opened;

/** The model beside this file, loaded once. */
export function open() {
  return (opened ??= load());
}

async function load() {
  const here = (name) => new URL(name, import.meta.url).href;
  const model = await (await fetch(here("./model.json"))).json();
  ort.env.wasm.wasmPaths = here("./runtime/");
  // More would need a page that is cut off from all others, and these graphs are small.
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(here("./model.onnx"), { executionProviders: ["wasm"] });
  return new Generator(model, session);
}

class Generator {
  constructor(model, session) {
    this.model = model;
    this.session = session;
  }

  /** The pixels of labels and seeds, as many of each, one image after the other, row by row: Uint8Array. */
  async generate(labels, seeds) {
    const { z, image } = this.model;
    const size = image.height * image.width * image.channels;
    const pixels = new Uint8Array(seeds.length * size);
    for (let first = 0; first < seeds.length; first += ROWS) {
      const part = seeds.slice(first, first + ROWS);
      const feeds = { latent: new ort.Tensor("float32", latents(this.model.grid, part, z), [part.length, z]) };
      if (this.model.classes.length) {
        const wanted = BigInt64Array.from(labels.slice(first, first + ROWS), BigInt);
        feeds.label = new ort.Tensor("int64", wanted, [part.length, 1]);
      }
      pixels.set((await this.session.run(feeds)).image.data, first * size);
    }
    return pixels;
  }

  /** Whether seeds 0 to 255 have the digest that the model's card promises; null where no browser would compute it. */
  async prove() {
    if (!globalThis.crypto?.subtle) return null;
    const seeds = [...Array(PROVEN).keys()];
    const classes = Math.max(this.model.classes.length, 1);
    const pixels = await this.generate(seeds.map((seed) => seed % classes), seeds);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", pixels));
    return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === this.model.exact_digest;
  }
}
