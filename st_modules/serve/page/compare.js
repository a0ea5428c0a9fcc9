// The view that compares: how near texts and pictures are to each other.

import { byId, complain, cut, make, tell } from "./dom.js";
import { checkSize, readAsUri, takeFiles, takePasted } from "./pictures.js";
import { dot, embed } from "./vectors.js";

const FEWEST = 2;
const MOST = 10;

let limits = null;
let compared = [];

export function startCompare() {
  byId("add-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("add-text").value.trim();
    if (!text) return complain(new Error("Write a text to add."));
    byId("add-text").value = "";
    add([{ name: text, item: { text }, url: null }]);
  });
  takeFiles(byId("compare-zone"), [byId("add-files")], addPictures);
  takePasted(byId("compare-view"), addPictures);
  byId("compare").addEventListener("click", () => compare().catch(complain));
}

export function setCompareLimits(facts) {
  limits = facts;
}

async function addPictures(files) {
  try {
    checkRoom(files.length);
    files.forEach((file) => checkSize(file, limits));
    const uris = await Promise.all(files.map(readAsUri));
    add(files.map((file, place) => ({ name: file.name, item: { image: uris[place] }, url: URL.createObjectURL(file) })));
  } catch (error) {
    complain(error);
  }
}

function checkRoom(more) {
  if (compared.length + more > MOST) throw new Error(`At most ${MOST} are compared: remove some, or add fewer.`);
}

function add(items) {
  try {
    checkRoom(items.length);
  } catch (error) {
    return complain(error);
  }
  compared.push(...items);
  list();
  tell(`${compared.length} of at most ${MOST} to be compared.`);
}

function list() {
  byId("map").hidden = true;
  byId("compared").replaceChildren(...compared.map((each, place) => {
    const label = `Remove ${place + 1}: ${cut(each.name, 80)}`;
    const button = make("button", { type: "button", className: "plain", "aria-label": label }, "Remove");
    button.addEventListener("click", () => remove(each));
    return make("li", { className: "card" }, ...show(each), button);
  }));
}

function remove(each) {
  if (each.url) URL.revokeObjectURL(each.url);
  compared = compared.filter((other) => other !== each);
  list();
  tell(`Removed. ${compared.length} of at most ${MOST} to be compared.`);
  byId("add-text").focus();
}

/** A picture with its name as the alternative, or a text. */
function show(each) {
  if (each.url) return [make("img", { src: each.url, alt: cut(each.name, 100) })];
  return [make("span", { dir: "auto" }, cut(each.name, 100))];
}

async function compare() {
  if (compared.length < FEWEST) throw new Error(`Add ${FEWEST} to ${MOST} texts and pictures first.`);
  tell("Comparing …");
  const shown = [...compared];
  const vectors = await embed(shown.map((each) => each.item), {});
  if (compared.length !== shown.length || compared.some((each, place) => each !== shown[place])) return;
  byId("map").replaceChildren(...draw(shown, vectors.map((one) => vectors.map((other) => dot(one, other)))));
  byId("map").hidden = false;
  tell("The map of similarities is below.");
}

function draw(items, scores) {
  const least = Math.min(...scores.flat());
  const legend = `Cosine similarities: the stronger the colour, the nearer, from ${least.toFixed(3)} to 1.`;
  const head = make("tr", {}, make("td"));
  items.forEach((each, place) => head.append(header("col", each, place)));
  const body = make("tbody");
  items.forEach((each, row) => {
    const line = make("tr", {}, header("row", each, row));
    for (const score of scores[row]) line.append(cell(score, least));
    body.append(line);
  });
  const caption = make("caption", {}, make("span", {}, legend));
  const table = make("table", {}, caption, make("thead", {}, head), body);
  // Ten columns are wider than a telephone: the table scrolls, by keyboard too, and the page does not.
  return [make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Similarities" }, table)];
}

function header(scope, each, place) {
  return make("th", { scope }, make("span", { className: "number" }, `${place + 1} `), ...show(each));
}

function cell(score, least) {
  const element = make("td", {}, score.toFixed(3));
  element.style.setProperty("--heat", `${Math.round((100 * (score - least)) / Math.max(1 - least, 1e-6))}%`);
  return element;
}
