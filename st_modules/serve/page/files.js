// The view of the reader's own files: embedded by the server, held here, and gone with the page.

import { byId, complain, count, cut, inMegabytes, make, tell } from "./dom.js";
import { checkSize, readAsUri, takeFiles } from "./pictures.js";
import { embed } from "./vectors.js";

const MOST_FILES = 2000;
const MOST_TEXT_BYTES = 2 ** 20;
const MOST_SHOWN = 200;
const BATCH = 8;
const BATCH_CHARACTERS = 4 * 2 ** 20;
const TEXTS = /\.(txt|text|md|markdown)$/i;
const PICTURES = /\.(avif|bmp|dib|gif|jfif|jpe|jpe?g|pbm|pgm|png|pnm|ppm|tiff?|webp)$/i;
// Statuses that are the fault of what was sent; others would meet the next file too.
const OF_ITEMS = [400, 413, 422, 504];

let limits = null;
let held = [];
let failures = [];
let loading = null;

/** Set the view up; `change` is called with the files that are held. */
export function startFiles(change) {
  byId("files-help").textContent =
    `Up to ${MOST_FILES.toLocaleString("en")} files: pictures, and texts (.txt, .md) of up to ` +
    `${inMegabytes(MOST_TEXT_BYTES)}. Of a long text the beginning counts, as much of it as the model reads.`;
  takeFiles(byId("files-zone"), [byId("folder"), byId("files")], (files) => load(files, change));
  byId("cancel").addEventListener("click", () => loading.abort());
  byId("close").addEventListener("click", () => {
    held = [];
    failures = [];
    finish(change);
    tell("The files are closed.");
    byId("files-title").focus();
  });
}

export function setLimits(facts) {
  limits = facts;
}

async function load(files, change) {
  try {
    if (loading) throw new Error("Other files are being read: wait for them, or cancel.");
    if (held.length + files.length > MOST_FILES) {
      const before = held.length ? ` beside the ${count(held.length, "item")} that it holds` : "";
      throw new Error(
        `${count(files.length, "file")}${before}: this page holds at most ${MOST_FILES.toLocaleString("en")}. ` +
          "Choose fewer, or make an index of them with st-modules index.",
      );
    }
  } catch (error) {
    complain(error);
    return;
  }
  loading = new AbortController();
  failures = [];
  const progress = new Progress(files.length);
  byId("cancel").focus();
  tell(`Reading ${count(files.length, "file")} …`);
  let problem = null;
  try {
    await embedAll(files, progress, loading.signal);
  } catch (error) {
    problem = error;
  }
  const wasCancelled = loading.signal.aborted;
  loading = null;
  finish(change);
  tell(`${wasCancelled ? "Cancelled. " : ""}${count(held.length, "file is", "files are")} ready to be searched.`);
  if (problem) complain(problem);
  byId("files-title").focus();
}

/** How far the reading is, as it is shown. */
class Progress {
  constructor(total) {
    this.total = total;
    this.done = 0;
    byId("loading").hidden = false;
    byId("progress").max = total;
    this.add(0);
  }

  add(files) {
    this.done += files;
    byId("progress").value = this.done;
    const failed = failures.length ? `, ${failures.length} of them failed` : "";
    byId("loaded").textContent = `${this.done} of ${count(this.total, "file")} read${failed}`;
  }

  fail(file, reason) {
    failures.push({ name: nameOf(file), reason });
    this.add(1);
  }
}

async function embedAll(files, progress, signal) {
  let batch = [];
  let characters = 0;
  for (const file of files) {
    signal.throwIfAborted();
    let read;
    try {
      read = await readFile(file);
    } catch (error) {
      progress.fail(file, error.message);
      continue;
    }
    const size = (read.item.text ?? read.item.image).length;
    if (batch.length === Math.min(BATCH, limits.max_items) || (batch.length && characters + size > mostCharacters())) {
      await embedBatch(batch, progress, signal);
      [batch, characters] = [[], 0];
    }
    batch.push(read);
    characters += size;
  }
  await embedBatch(batch, progress, signal);
}

function mostCharacters() {
  return Math.min(BATCH_CHARACTERS, limits.max_body_bytes / 4);
}

/** Embed some files; those that the server refuses are failures, and the others are embedded without them. */
async function embedBatch(batch, progress, signal) {
  if (batch.length === 0) return;
  try {
    const vectors = await embed(batch.map((each) => each.item), { side: "document", truncate: true }, signal);
    held.push(...batch.map(({ file, text }, place) => ({ name: nameOf(file), source: file, text, vector: vectors[place] })));
    progress.add(batch.length);
  } catch (error) {
    if (!OF_ITEMS.includes(error.status)) throw error;
    const place = /^input\[(\d+)\]/.exec(error.param ?? "");
    const middle = batch.length >> 1;
    if (batch.length === 1) {
      progress.fail(batch[0].file, withoutPlace(error.message));
    } else if (place) {
      const bad = Number(place[1]);
      progress.fail(batch[bad].file, withoutPlace(error.message));
      await embedBatch(batch.toSpliced(bad, 1), progress, signal);
    } else {
      await embedBatch(batch.slice(0, middle), progress, signal);
      await embedBatch(batch.slice(middle), progress, signal);
    }
  }
}

/** The server counts the items of a request, and the reader knows files. */
function withoutPlace(message) {
  return message.replace(/^item \d+(, image \d+)?: /, "");
}

async function readFile(file) {
  if (TEXTS.test(file.name)) {
    if (file.size > MOST_TEXT_BYTES) throw new Error(`a text of ${inMegabytes(file.size)}`);
    const text = decode(await file.arrayBuffer());
    if (!text.trim()) throw new Error("an empty text");
    return { file, text, item: { text } };
  }
  if (!PICTURES.test(file.name) && !file.type.startsWith("image/")) throw new Error("no picture and no text file");
  checkSize(file, limits);
  return { file, text: null, item: { image: await readAsUri(file) } };
}

function decode(buffer) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(buffer);
  } catch {
    throw new Error("a text that is not UTF-8");
  }
}

function nameOf(file) {
  return file.webkitRelativePath || file.name;
}

function finish(change) {
  byId("loading").hidden = true;
  byId("held").hidden = held.length === 0;
  byId("held-text").textContent = `${count(held.length, "file is", "files are")} held in this page.`;
  byId("failures").hidden = failures.length === 0;
  byId("failures-title").textContent = `${count(failures.length, "file")} could not be read`;
  const shown = failures.slice(0, MOST_SHOWN).map(({ name, reason }) => make("li", {}, `${cut(name, 300)}: ${cut(reason, 500)}`));
  if (failures.length > MOST_SHOWN) shown.push(make("li", {}, `and ${failures.length - MOST_SHOWN} more`));
  byId("failed").replaceChildren(...shown);
  change([...held]);
}
