// What every view does with the page. Texts from outside become text nodes, never markup.

export const byId = (id) => document.getElementById(id);

/** Make an element: its properties and attributes, then what is in it. */
export function make(tag, properties = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...inside);
  return element;
}

export function cut(text, longest) {
  return text.length <= longest ? text : `${text.slice(0, longest - 1)}…`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function inMegabytes(bytes) {
  return `${(bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
}

/** Say how it stands; what was wrong before is no longer. */
export function tell(text) {
  byId("problem").textContent = "";
  byId("status").textContent = text;
}

/** Say what is wrong. Work that was called off is nothing wrong. */
export function complain(error) {
  if (error.name === "AbortError") return;
  byId("status").textContent = "";
  byId("problem").textContent = cut(error.message, 1000);
  if (error.status === 401) document.dispatchEvent(new CustomEvent("key-needed"));
}
