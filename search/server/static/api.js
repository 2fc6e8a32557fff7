// The server's API (docs/server.md): one function asks, and what goes wrong is one line for people.

const TOKEN = document.querySelector('meta[name="waldo-token"]').content;
// How often a search is asked again that the server has no time for now.
const MOST_TRIES = 5;

/** What went wrong, in one line. status: of HTTP; 0 where the server did not answer. */
export class Problem extends Error {
  constructor(line, status) {
    super(line);
    this.status = status;
  }
}

/**
 * What the server answers at a path below /api/v1, read as JSON. With a body it is sent: a Blob as
 * it is, anything else as JSON. Throws Problem; and AbortError once the signal says so.
 */
export async function ask(path, body, signal, method = body === undefined ? "GET" : "POST") {
  for (let tries = 1; ; tries++) {
    const response = await send(path, method, body, signal);
    if (response.status === 503 && tries < MOST_TRIES) {
      await sleep(Number(response.headers.get("retry-after")) || 1);
      continue;
    }
    const told = await response.json().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { error: "the server's answer cannot be read" };
    });
    if (response.ok && !told.error) return told;
    throw new Problem(told.error, response.status);
  }
}

async function send(path, method, body, signal) {
  const request = { method, signal };
  if (method !== "GET") request.headers = { "X-Waldo-Token": TOKEN };
  if (body !== undefined) request.body = body instanceof Blob ? body : JSON.stringify(body);
  try {
    return await fetch(`/api/v1/${path}`, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server does not answer; is `waldo serve` still running?", 0);
  }
}

function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

/**
 * The address of a photo as a picture. photo: {id} or {upload}, or {name}: a part of a photo of the
 * object of this name; size: its longer side, pixels.
 */
export function pictureOf(photo, size) {
  const [[kind, name]] = Object.entries(photo);
  const place = `${{ id: "photos", upload: "uploads", name: "names" }[kind]}/${encodeURIComponent(name)}`;
  return `/api/v1/${place}/picture?size=${size}`;
}

/** [width, height] of a photo of the index, pixels. */
export async function sizeOf({ id }) {
  const { width, height } = await ask(`photos/${id}`);
  return [width, height];
}

let known = null; // the collection as it was last told
let asking = null;
/**
 * What the index holds; the same object as long as nothing changes. anew: ask even so, for photos
 * may have come or gone; where they have, no answer that was kept holds.
 */
export function theCollection(anew = false) {
  if (anew) asking = null;
  asking ??= ask("collection").then(
    (told) => {
      if (JSON.stringify(told) === JSON.stringify(known)) return known;
      if (known) answers = new Map();
      return (known = told);
    },
    (error) => {
      asking = null;
      throw error;
    },
  );
  return asking;
}

let answers = new Map();
/**
 * The answer to a search. The last ones are kept, as the server does, so that going back takes no
 * time. again: ask even so, for the server has forgotten the answer.
 */
export async function answerTo(search, again = false) {
  const kept = answers; // an answer that comes after they were forgotten is not kept
  const key = JSON.stringify(search);
  if (again || !kept.has(key)) {
    kept.set(key, await ask("searches", search));
    if (kept.size > 8) kept.delete(kept.keys().next().value);
  }
  return kept.get(key);
}

/** The answer to a search if it is kept, else null. */
export function keptAnswer(search) {
  return answers.get(JSON.stringify(search)) ?? null;
}

/** The index was changed: what it answered before may no longer hold. */
export function forgetAnswers() {
  answers = new Map();
  asking = null;
}
