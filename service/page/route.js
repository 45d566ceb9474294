// What is shown is said by the address alone: #/VIEW?name=value. Whoever opens it sees the same.

export const VIEWS = ["grid", "sheet", "walk", "verify", "models", "jobs", "data"];

let draw = () => {};

export function here() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return {
    view: VIEWS.includes(path) ? path : "grid",
    parameters: Object.fromEntries(new URLSearchParams(query)),
  };
}

export function link(view, parameters = {}) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

/** Show something else; the browser's back button leads here again, unless `replace`. */
export function go(view, parameters, { replace = false } = {}) {
  note(view, parameters, replace);
  return draw();
}

/** Change the address without drawing. */
export function note(view, parameters, replace = true) {
  const to = link(view, parameters);
  if (to !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", to);
}

export function onRoute(handler) {
  draw = handler;
  addEventListener("hashchange", () => {
    // The skip link is no view.
    if (location.hash.startsWith("#/") || !location.hash) handler();
  });
}
