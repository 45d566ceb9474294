// Calls of the service: the token's header, problem documents as errors, pictures with and without a token.

const KEY = "ganserve.token";
const TRIES = 4;
const SIDE_BY_SIDE = 6;

/** A refusal, in the service's words. */
export class Problem extends Error {
  constructor(status, detail, errors = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }
}

/** Who we are: role is "", "user" or "admin"; guarded, whether pictures need the header. */
export const session = { token: sessionStorage.getItem(KEY) ?? "", role: "", guarded: false };

/** An address of the service as an absolute URL; it may live below a path of its own. */
export function address(path, parameters = {}) {
  const url = new URL(path, location.origin + location.pathname);
  for (const [name, value] of Object.entries(parameters)) {
    if (Array.isArray(value)) value.forEach((one) => url.searchParams.append(name, one));
    else if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url.href;
}

export const imagePath = (model, version, label, seed, truncation) =>
  `images/${encodeURIComponent(model)}/${version}/${encodeURIComponent(label)}/${seed}.png${truncation ? `?truncation=${truncation}` : ""}`;

/** Send a request; answers with the response, or throws a Problem. */
export async function send(path, { token = session.token, json, headers = {}, ...options } = {}) {
  const sent = { ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (json !== undefined) {
    sent["Content-Type"] = "application/json";
    options.body = JSON.stringify(json);
  }
  let response;
  try {
    response = await fetch(path.startsWith("http") ? path : address(path), {
      ...options,
      headers: sent,
      mode: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service does not answer. Is it running?");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

export const read = async (path, options) => (await send(path, options)).json();

export async function problem(response) {
  const text = await response.text();
  const made = problemOf(response.status, text);
  made.retryAfter = Number(response.headers.get("Retry-After"));
  return made;
}

export function problemOf(status, text) {
  try {
    const told = JSON.parse(text);
    return new Problem(status, told.detail ?? told.title ?? `error ${status}`, told.errors);
  } catch {
    return new Problem(status, `error ${status}`);
  }
}

/** Try a token; sets the session. Throws the Problem that tells why it is refused. */
export async function signIn(token) {
  const role = await roleOf(token);
  Object.assign(session, { token, role });
  sessionStorage.setItem(KEY, token);
}

export function signOut() {
  Object.assign(session, { token: "", role: "" });
  sessionStorage.removeItem(KEY);
}

async function roleOf(token) {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Problem(401, "a token has no blanks or other characters than ASCII");
  try {
    await send("datasets", { token });
    return "admin";
  } catch (error) {
    if (error.status !== 403 || !session.guarded) throw error;
    await send("models", { token });
    return "user";
  }
}

/** Learn whether pictures are guarded, and what the token of this tab is good for. */
export async function begin() {
  try {
    await send("models", { token: "" });
    session.guarded = false;
  } catch (error) {
    if (error.status !== 401) throw error;
    session.guarded = true;
  }
  if (!session.token) return;
  try {
    await signIn(session.token);
  } catch (error) {
    if (error.status === 401 || error.status === 403) signOut();
    throw error;
  }
}

const wait = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });

async function patiently(path, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await send(path, { signal });
    } catch (error) {
      if (![429, 503].includes(error.status) || attempt === TRIES) throw error;
      await wait(Math.min(error.retryAfter || 1, 10), signal);
    }
  }
}

/** The pictures of one view: they load side by side and are let go together. */
export class Pictures {
  #stop = new AbortController();
  #made = [];
  #waiting = [];
  #running = 0;

  constructor(failed) {
    this.failed = failed;
  }

  /** Load `path` into `img`; by its address where that is open, else (`guarded`) fetched with the token. */
  show(img, path, guarded = session.guarded) {
    if (guarded) return this.#queue(img, path);
    return new Promise((resolve) => {
      const { signal } = this.#stop;
      img.addEventListener("load", resolve, { signal, once: true });
      // The element does not tell what was wrong; asking again does, or brings the picture after all.
      img.addEventListener("error", () => resolve(this.#queue(img, path)), { signal, once: true });
      img.src = address(path);
    });
  }

  #queue(img, path) {
    return new Promise((resolve) => {
      this.#waiting.push({ img, path, resolve });
      this.#next();
    });
  }

  async #next() {
    if (this.#running >= SIDE_BY_SIDE || !this.#waiting.length) return;
    const { img, path, resolve } = this.#waiting.shift();
    const { signal } = this.#stop;
    this.#running++;
    try {
      const blob = await (await patiently(path, signal)).blob();
      if (!signal.aborted) {
        img.src = this.keep(blob);
        await img.decode();
      }
    } catch (error) {
      if (!signal.aborted) {
        img.classList.add("broken");
        this.failed(error);
      }
    } finally {
      this.#running--;
      resolve();
      this.#next();
    }
  }

  /** A URL of a blob, which ends with the view. */
  keep(blob) {
    const url = URL.createObjectURL(blob);
    this.#made.push(url);
    return url;
  }

  get signal() {
    return this.#stop.signal;
  }

  /** Stop what still loads and let go of what was made. */
  close() {
    this.#waiting = [];
    this.#stop.abort();
    this.#made.forEach((url) => URL.revokeObjectURL(url));
  }
}

/** Save what is at `path` as a file; with the token where that is needed. */
export async function save(path, name) {
  const blob = await (await send(path)).blob();
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/** The data of server-sent events, parsed; EventSource cannot send the token. */
export async function* events(path, signal) {
  const response = await send(path, { signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r\n", "\n");
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5).trimStart()).join("\n"));
    }
  }
}

/** PUT a file, telling the share that is sent; answers with the JSON document. */
export function upload(path, file, { progress, signal }) {
  return new Promise((resolve, reject) => {
    // fetch cannot tell how much of a body it has sent.
    const request = new XMLHttpRequest();
    request.open("PUT", address(path));
    request.setRequestHeader("Authorization", `Bearer ${session.token}`);
    request.setRequestHeader("Content-Type", "application/zip");
    request.upload.addEventListener("progress", (event) => progress(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(problemOf(request.status, request.responseText));
    });
    request.addEventListener("error", () => reject(new Problem(0, "The upload broke off. Is the service running?")));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
