// The hits of a search as cards.

import { byId, complain, count, cut, make, tell } from "./dom.js";

const LONGEST_TEXT = 400;
const LONGEST_DETAIL = 20000;

let urls = [];
let fetching = new AbortController();

/**
 * Show hits in the place of those before.
 * @param hits what a search found; `picture(signal)` of each returns a blob, and is missing where it has none
 * @param more is called with a hit, to find what is like it
 */
export function showHits(heading, hits, more) {
  clearHits();
  byId("results").hidden = false;
  byId("results-title").textContent = heading;
  byId("hits").replaceChildren(...hits.map((hit, place) => makeCard(hit, place + 1, more)));
  tell(hits.length ? `${count(hits.length, "result")}.` : "Nothing was found.");
  // Below the form of a telephone nobody would see that there are some.
  const title = byId("results-title");
  if (title.getBoundingClientRect().top > innerHeight - 80) title.scrollIntoView();
}

export function clearHits() {
  fetching.abort();
  fetching = new AbortController();
  urls.forEach(URL.revokeObjectURL);
  urls = [];
  byId("hits").replaceChildren();
  byId("results").hidden = true;
}

function makeCard(hit, rank, more) {
  const file = nameFile(hit.source);
  const name = hit.page === null ? file : `${file}, page ${hit.page}`;
  const score = make("p", { className: "score" }, make("span", {}, String(rank)), make("span", {}, hit.score.toFixed(4)));
  const card = make("li", { className: "card" }, score);
  if (hit.picture) card.append(makePicture(hit, name));
  if (hit.text) card.append(make("p", { className: "text", dir: "auto" }, cut(hit.text, LONGEST_TEXT)));
  const label = `More like this: result ${rank}`;
  const button = make("button", { type: "button", className: "plain", "aria-label": label }, "More like this");
  button.addEventListener("click", () => more(hit));
  card.append(make("p", { className: "source" }, cut(name, 300)), button, makeDetails(hit, rank));
  return card;
}

/** The name of a file, without the folders that it is in. */
export function nameFile(source) {
  return source.split(/[\\/]/).pop() || source;
}

function makePicture(hit, name) {
  const figure = make("figure");
  const { signal } = fetching;
  hit.picture(signal).then(
    (blob) => {
      if (signal.aborted) return;
      const url = URL.createObjectURL(blob);
      urls.push(url);
      const image = make("img", { src: url, alt: cut(name, 300) });
      image.addEventListener("error", () => figure.replaceChildren("The browser cannot show this picture."));
      figure.append(image);
    },
    (error) => {
      if (error.status === 401) complain(error);
      figure.replaceChildren(cut(error.message, 300));
    },
  );
  return figure;
}

function makeDetails(hit, rank) {
  const known = { id: hit.id, source: hit.source, ...hit.metadata };
  if (hit.text && hit.text.length > LONGEST_TEXT) known.text = hit.text;
  const rows = Object.entries(known).filter(([, value]) => value !== null);
  const list = make("dl");
  for (const [name, value] of rows) {
    list.append(make("dt", {}, cut(name, 100)), make("dd", { dir: "auto" }, cut(String(value), LONGEST_DETAIL)));
  }
  return make("details", {}, make("summary", { "aria-label": `Details of result ${rank}` }, "Details"), list);
}
