// Requests to the server that this page is of, with its key.

const KEY = "st-modules-key";
const MOST_TRIES = 10;
const LONGEST_WAIT = 60;

/** What the server refused, in its words. */
export class Refused extends Error {
  constructor(message, status, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

export async function ask(path, body, signal) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  return (await request(path, options, signal)).json();
}

export async function fetchPicture(id, signal) {
  return (await request(`v1/index/picture?id=${encodeURIComponent(id)}`, {}, signal)).blob();
}

async function request(path, options, signal) {
  for (let tries = 1; ; tries += 1) {
    const response = await send(path, options, signal);
    if (response.ok) return response;
    if (response.status !== 429 || tries === MOST_TRIES) throw await describe(response);
    await wait(Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_WAIT), signal);
  }
}

async function send(path, options, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = { "Content-Type": "application/json" };
  // Headers have no letters beyond Latin-1; the server compares the bytes of UTF-8.
  if (key) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
  try {
    return await fetch(path, { ...options, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?", 0);
  }
}

async function describe(response) {
  if (response.status === 401) {
    return new Refused(sessionStorage.getItem(KEY) ? "This is not the server's key." : "", 401);
  }
  try {
    const { message, param } = (await response.json()).error;
    // The reader chose files, and knows nothing of the data URIs that they were sent as.
    return new Refused(message.replace(/data URI data:\S+( \(\d+ characters\))?: /, ""), response.status, param);
  } catch {
    return new Refused(`The server answered with the status ${response.status}.`, response.status);
  }
}

function wait(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
