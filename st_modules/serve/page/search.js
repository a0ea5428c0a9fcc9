// The view that searches: the index of the server, or the files that this page holds.

import { byId, complain, count, cut, make, tell } from "./dom.js";
import { checkSize, readAsUri, takeFiles, takePasted } from "./pictures.js";
import { clearHits, nameFile, showHits } from "./results.js";
import { ask, fetchPicture } from "./server.js";
import { dot, embed } from "./vectors.js";

const OWN_WORDS = "own words";

let served = null;
let held = [];
let picture = null;
let preview = null;
let searching = new AbortController();

export function startSearch() {
  takeFiles(byId("query-zone"), [byId("query-file")], ([file]) => setPicture(file));
  takePasted(byId("search-view"), ([file]) => setPicture(file));
  byId("query-remove").addEventListener("click", () => {
    setPicture(null);
    byId("query-file").focus();
  });
  byId("instruction").addEventListener("change", explainInstruction);
  byId("places").addEventListener("change", arrange);
  byId("mode").addEventListener("change", explainInstruction);
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(search);
  });
  byId("text").addEventListener("keydown", (event) => {
    // Return searches, as in every other box of the form; with Shift it begins a line.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("search-form").requestSubmit();
  });
}

/** Take what the server says of itself. */
export function setServed(facts) {
  served = facts;
  const named = Object.entries(facts.prompts).map(([name, prompt]) => make("option", { value: name }, `${name}: ${cut(prompt, 60)}`));
  byId("instruction").replaceChildren(
    make("option", { value: "" }, "none"),
    ...named,
    make("option", { value: OWN_WORDS }, "in your own words …"),
  );
  if (facts.index) {
    byId("place-index").textContent = `The index (${count(facts.index.count, "item")})`;
    const columns = facts.index.columns.map(({ name, type }) => `${name} (${type})`).join(", ");
    byId("where-help").textContent = `Such as page < 3 AND source LIKE '%.pdf'. The columns are ${cut(columns, 2000)}.`;
  }
  arrange();
}

/** Take the files that the page holds, or none. */
export function setHeld(files) {
  held = files;
  clearHits();
  byId("place-files").textContent = `Your files (${count(files.length, "item")})`;
  const [index, own] = document.getElementsByName("place");
  (files.length ? own : index).checked = true;
  arrange();
}

/** Show the fields that count for the place that is searched. */
function arrange() {
  const inFiles = searchesFiles();
  byId("places").hidden = !served.index || held.length === 0;
  byId("nothing").hidden = Boolean(served.index) || held.length > 0;
  byId("search-form").hidden = !byId("nothing").hidden;
  byId("filter-field").hidden = inFiles;
  byId("mode-field").hidden = inFiles || !served.index?.has_texts;
  explainInstruction();
}

function explainInstruction() {
  const chosen = byId("instruction").value;
  byId("instruction-field").hidden = !served.reads_instruction || readMode() === "text";
  byId("own-field").hidden = byId("instruction-field").hidden || chosen !== OWN_WORDS;
  byId("instruction-help").textContent = byId("instruction-field").hidden ? "" : (served.prompts[chosen] ?? "");
}

function searchesFiles() {
  return held.length > 0 && (!served.index || document.querySelector("[name=place]:checked").value === "files");
}

function readK() {
  return byId("k").valueAsNumber || Number(byId("k").defaultValue);
}

function readMode() {
  return byId("mode-field").hidden ? "vector" : byId("mode").value;
}

function setPicture(file) {
  try {
    if (file) checkSize(file, served);
  } catch (error) {
    complain(error);
    return;
  }
  picture = file;
  if (preview) URL.revokeObjectURL(preview);
  preview = file && URL.createObjectURL(file);
  byId("query-preview").hidden = !file;
  if (file) byId("query-preview").src = preview;
  else byId("query-preview").removeAttribute("src");
  byId("query-name").textContent = file ? cut(file.name, 100) : "Drop a picture here, paste one, or";
  byId("query-remove").hidden = !file;
  tell(file ? "The picture is part of the query." : "The query has no picture.");
}

/** Do one search; the one before it is called off. */
async function run(work) {
  searching.abort();
  searching = new AbortController();
  tell("Searching …");
  try {
    await work(searching.signal);
  } catch (error) {
    complain(error);
  }
}

async function search(signal) {
  const text = byId("text").value.trim();
  if (!text && !picture) throw new Error("Write what to look for, or choose a picture.");
  const item = { ...(text && { text }), ...(picture && { image: await readAsUri(picture) }) };
  if (searchesFiles()) {
    const [vector] = await embed([item], { side: "query", ...readInstruction() }, signal);
    showFiles("Results", rank(vector));
    return;
  }
  const where = byId("where").value.trim();
  const body = { query: item, mode: readMode(), ...(where && { where }), ...readInstruction() };
  await showIndex("Results", body, signal);
}

function readInstruction() {
  const chosen = byId("instruction").value;
  if (byId("instruction-field").hidden || !chosen) return {};
  if (chosen !== OWN_WORDS) return { prompt_name: chosen };
  const own = byId("own").value.trim();
  return own ? { instruction: own } : {};
}

async function showIndex(title, body, signal) {
  const { data } = await ask("v1/search", { ...body, k: readK() }, signal);
  const hits = data.map((hit) => ({ ...hit, picture: hit.image && ((ended) => fetchPicture(hit.id, ended)) }));
  showHits(title, hits, (hit) =>
    run(async (later) => {
      const where = byId("where").value.trim();
      await showIndex(likeTitle(hit), { like: hit.id, ...(where && { where }) }, later);
      byId("results-title").focus();
    }),
  );
}

function rank(vector, other = null) {
  const scored = held.filter((file) => file !== other).map((file) => ({ file, score: dot(file.vector, vector) }));
  return scored.sort((one, two) => two.score - one.score).slice(0, readK());
}

function showFiles(title, ranked) {
  const hits = ranked.map(({ file, score }) => ({
    file,
    score,
    source: file.name,
    page: null,
    text: file.text,
    metadata: { bytes: file.source.size },
    id: null,
    picture: file.text === null && (() => Promise.resolve(file.source)),
  }));
  showHits(title, hits, (hit) => {
    showFiles(likeTitle(hit), rank(hit.file.vector, hit.file));
    byId("results-title").focus();
  });
}

function likeTitle(hit) {
  return `More like ${cut(nameFile(hit.source), 80)}`;
}
