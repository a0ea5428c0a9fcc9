// The page: which view is shown, the key, and what the server says of itself.

import { setCompareLimits, startCompare } from "./compare.js";
import { byId, complain, count, tell } from "./dom.js";
import { setLimits, startFiles } from "./files.js";
import { setHeld, setServed, startSearch } from "./search.js";
import { ask, useKey } from "./server.js";

const VIEWS = ["search", "files", "compare"];

let view = "search";
let isReady = false;

function showView() {
  const wanted = location.hash.slice(1);
  const changes = VIEWS.includes(wanted) && wanted !== view;
  if (changes) view = wanted;
  for (const name of VIEWS) {
    byId(`${name}-view`).hidden = !isReady || name !== view;
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (changes && isReady) {
    tell(""); // what was said is of the view before
    byId(`${view}-title`).focus();
  }
}

function askForKey() {
  byId("key-view").hidden = false;
  byId("key").focus();
}

async function begin() {
  try {
    const facts = await ask("v1/index");
    const of = facts.index ? `, over an index of ${count(facts.index.count, "item")}` : "";
    byId("served").textContent = `by ${facts.model}${of}`;
    setServed(facts);
    setLimits(facts);
    setCompareLimits(facts);
    isReady = true;
    byId("key-view").hidden = true;
    showView();
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  if (!(await begin())) return;
  byId("key").value = "";
  tell("The key is right.");
  byId(`${view}-title`).focus();
});
document.addEventListener("key-needed", askForKey);
addEventListener("hashchange", showView);
// A file that misses its zone would take the place of the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

startSearch();
startFiles(setHeld);
startCompare();
showView();
begin();
