// The API as the browser reads it: with the user's token, by get, list and watch.

const KEY = "svcplane-token";
let token = "";

export class ApiError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** A token in the address (`#token=...`) is taken and removed from it; else the tab's own. */
export function recall() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    remember(decodeURIComponent(given[1]));
    history.replaceState(null, "", location.pathname + "#/map");
  }
  token = sessionStorage.getItem(KEY) ?? "";
  return token !== "";
}

export function remember(value) {
  token = value;
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

async function ask(path, signal) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  let message = `the server answered ${answer.status}`;
  try {
    message = (await answer.json()).message || message;
  } catch {
    // no Status: the number tells enough
  }
  throw new ApiError(answer.status, message);
}

export async function get(path, signal) {
  return (await ask(path, signal)).json();
}

/** All pages; gives [items, resourceVersion]. */
export async function list(path, signal) {
  const items = [];
  let page;
  let next = "";
  do {
    page = await get(`${path}?limit=500${next && `&continue=${encodeURIComponent(next)}`}`, signal);
    items.push(...(page.items ?? []));
    next = page.metadata.continue ?? "";
  } while (next);
  return [items, page.metadata.resourceVersion];
}

/** Events of a watch, in batches as they arrive. */
export async function* watch(path, version, signal) {
  const query = `watch=true&allowWatchBookmarks=true&resourceVersion=${version}&timeoutSeconds=300`;
  const answer = await ask(`${path}?${query}`, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    const events = lines.filter((line) => line).map((line) => JSON.parse(line));
    if (events.length) yield events;
  }
}
