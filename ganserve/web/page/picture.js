// Pixels as a PNG that says that a machine made it, and at which address: docs/marks.md has what is written.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const COLOUR = { 1: 0, 2: 4, 3: 2, 4: 6 };
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit += 1) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

const ascii = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

function word(value) {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

function chunk(kind, data) {
  const content = new Uint8Array([...ascii(kind), ...data]);
  const crc = content.reduce((sum, byte) => TABLE[(sum ^ byte) & 255] ^ (sum >>> 8), 0xffffffff) ^ 0xffffffff;
  return new Uint8Array([...word(data.length), ...content, ...word(crc >>> 0)]);
}

/** A PNG of pixels, row by row, with the chunks `mark` (base64) and the address as text. */
export async function png(pixels, { height, width, channels }, mark, address) {
  const line = width * channels;
  const rows = new Uint8Array(height * (line + 1));
  for (let y = 0; y < height; y += 1) rows.set(pixels.subarray(y * line, (y + 1) * line), y * (line + 1) + 1);
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  return new Blob(
    [
      Uint8Array.from(SIGNATURE),
      chunk("IHDR", [...word(width), ...word(height), 8, COLOUR[channels], 0, 0, 0]),
      ascii(atob(mark)),
      chunk("tEXt", ascii(`Address\0${address}`)),
      chunk("IDAT", data),
      chunk("IEND", []),
    ],
    { type: "image/png" },
  );
}
