// Seeds to latents on a grid, by whole numbers alone: docs/addresses.md says how, word by word.

const FACTORS = [0xd2511f53, 0xcd9e8d57];
const WEYL = [0x9e3779b9, 0xbb67ae85];
const WORD = 2 ** 32;

/** The upper 32 bits of the product of two words; Math.imul has the lower ones. No part exceeds 2**53. */
function high(a, b) {
  const [a1, a0, b1, b0] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const lower = a0 * b1 + (middle % 65536);
  return a1 * b1 + Math.floor(middle / 65536) + Math.floor(lower / 65536);
}

/** Philox4x32-10: four words of a counter of four words under a key of two. */
export function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round += 1) {
    const [high0, low0] = [high(FACTORS[0], c0), Math.imul(FACTORS[0], c0) >>> 0];
    const [high1, low1] = [high(FACTORS[1], c2), Math.imul(FACTORS[1], c2) >>> 0];
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    [k0, k1] = [(k0 + WEYL[0]) >>> 0, (k1 + WEYL[1]) >>> 0];
  }
  return [c0, c1, c2, c3];
}

/** How many of the ascending thresholds lie at or below a word. */
function below(thresholds, word) {
  let [low, top] = [0, thresholds.length];
  while (low < top) {
    const middle = (low + top) >> 1;
    if (thresholds[middle] <= word) low = middle + 1;
    else top = middle;
  }
  return low;
}

/**
 * The latents of whole seeds below 2**53, one after the other: Float32Array of seeds.length * z values.
 * `grid`: the step of 1 and, for the normal recipe, its thresholds.
 */
export function latents({ steps, thresholds }, seeds, z) {
  const values = new Float32Array(seeds.length * z);
  seeds.forEach((seed, row) => {
    const key = [seed % WORD, Math.floor(seed / WORD)];
    for (let block = 0; block * 4 < z; block += 1) {
      const words = philox([block, 0, 0, 0], key);
      words.slice(0, z - block * 4).forEach((word, place) => {
        const k = thresholds ? below(thresholds, word) - (thresholds.length >> 1) : (word >>> 24) - 128;
        values[row * z + block * 4 + place] = k / steps;
      });
    }
  });
  return values;
}
