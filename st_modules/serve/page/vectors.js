// Vectors from the server, and how near they are: all have length 1.

import { ask } from "./server.js";

/** Embed items; the options are fields of the request, such as the side. */
export async function embed(items, options, signal) {
  const { data } = await ask("v1/embeddings", { input: items, encoding_format: "base64", ...options }, signal);
  return data.map((each) => decode(each.embedding));
}

export function dot(one, other) {
  let sum = 0;
  for (let place = 0; place < one.length; place += 1) sum += one[place] * other[place];
  return sum;
}

function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(4 * place, true));
}
