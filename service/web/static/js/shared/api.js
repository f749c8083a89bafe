// Requests to the service's API, as the user who is signed in. The routes are those of the OpenAPI document, whose
// types (types/api.d.ts) name what each takes and answers. The browser itself keeps answers that have an ETag and
// revalidates them: a 304 has no body.

import { readClock } from "./clock.js";

const TIMEOUT_SECONDS = 20;

/** A failed request, in words for people. `status` is 0 where the service did not answer at all. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} words
   * @param {number | null} retrySeconds
   */
  constructor(status, code, words, retrySeconds = null) {
    super(words);
    this.status = status;
    this.code = code;
    this.retrySeconds = retrySeconds;
  }
}

/**
 * @typedef {Record<string, unknown>} Query
 * @typedef {{ path?: Record<string, string>, query?: Query, body?: unknown }} Asked
 * @typedef {object} Options
 * @property {AbortSignal} [signal]
 * @property {object | null} [seen] the answer whose version is to be replaced (versionOf): another one is refused with the
 *   code "changed"; null: there was none
 */

/** @type {WeakMap<object, string>} */
const versions = new WeakMap(); // of answers

/**
 * The version of an answer: its ETag, "" where it has none.
 * @param {object} answer
 */
export function versionOf(answer) {
  return versions.get(answer) ?? "";
}

/**
 * The answer of `route`, such as `/api/v1/servers/{server_id}` with `path: { server_id: "nas" }`. Values of `query` may
 * be lists; null is left out.
 * Throws ApiError; a user who is not signed in is sent to the sign-in page, which leads back. An aborted `signal`
 * throws. @template {keyof Api.Get} Route @param {Route} route @param {Api.Get[Route]["asked"] & Options} asked
 * @returns {Promise<Api.Get[Route]["answer"]>}
 */
export function get(route, asked) {
  return call("GET", route, asked);
}

/**
 * Sends `body` as JSON. Throws as `get` does.
 * @template {keyof Api.Post} Route
 * @param {Route} route
 * @param {Api.Post[Route]["asked"] & Options} asked
 * @returns {Promise<Api.Post[Route]["answer"]>}
 */
export function post(route, asked) {
  return call("POST", route, asked);
}

/**
 * Sends `body` as JSON, to replace what is there. Throws as `get` does.
 * @template {keyof Api.Put} Route
 * @param {Route} route
 * @param {Api.Put[Route]["asked"] & Options} asked
 * @returns {Promise<Api.Put[Route]["answer"]>}
 */
export function put(route, asked) {
  return call("PUT", route, asked);
}

/**
 * Removes what is there. Throws as `get` does.
 * @template {keyof Api.Delete} Route
 * @param {Route} route
 * @param {Api.Delete[Route]["asked"] & Options} asked
 * @returns {Promise<null>}
 */
export function remove(route, asked) {
  return call("DELETE", route, asked);
}

/**
 * Signs in with a token or a code, or out. Throws as `get` does, but stays on the page.
 * @param {"/sign-in" | "/sign-out"} url
 * @param {{ token?: string, code?: string }} body
 */
export function signInOrOut(url, body) {
  return send("POST", url, body);
}

/** Goes to the sign-in page, which leads back here. */
export function toSignIn() {
  const back = location.pathname + location.search;
  location.assign(back === "/" ? "/sign-in" : `/sign-in?back=${encodeURIComponent(back)}`);
}

/**
 * @param {string} method
 * @param {string} route
 * @param {Asked & Options} asked
 */
async function call(method, route, { path = {}, query = {}, body, signal, seen }) {
  const url = route.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(path[name] ?? ""));
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one != null) search.append(name, String(one));
  }
  try {
    return await send(method, search.size ? `${url}?${search}` : url, body, signal, conditionOf(seen));
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) toSignIn();
    throw error;
  }
}

/**
 * @param {object | null | undefined} seen as in Options
 * @returns {Record<string, string>}
 */
function conditionOf(seen) {
  if (seen === undefined) return {};
  return seen === null ? { "If-None-Match": "*" } : { "If-Match": versionOf(seen) };
}

/**
 * @param {string} method
 * @param {string} url
 * @param {unknown} [body]
 * @param {AbortSignal} [given]
 * @param {Record<string, string>} [condition] headers
 * @returns {Promise<any>} what the caller's types say
 */
async function send(method, url, body, given, condition = {}) {
  const limit = AbortSignal.timeout(TIMEOUT_SECONDS * 1000);
  // The service takes a session's changes as JSON alone, which no form of another site can send: an empty one, too.
  const json = body === undefined && (method === "POST" || method === "PUT") ? {} : body;
  const sent = json === undefined
    ? { headers: condition }
    : { body: JSON.stringify(json), headers: { "Content-Type": "application/json", ...condition } };
  let answer;
  let content;
  try {
    const signal = given ? AbortSignal.any([given, limit]) : limit;
    answer = await fetch(url, { method, ...sent, signal, credentials: "same-origin" });
    readClock(answer.headers.get("Date"));
    const text = await answer.text();
    content = text ? JSON.parse(text) : null;
    const version = answer.headers.get("ETag");
    if (version && content) versions.set(content, version);
  } catch (error) {
    if (given?.aborted) throw error;
    // A proxy may answer in the service's place, and not in JSON.
    throw new ApiError(answer?.status ?? 0, "unreachable", "The service does not respond");
  }
  if (answer.ok) return content;
  const retry = Number(answer.headers.get("Retry-After")) || null;
  throw new ApiError(answer.status, content?.code ?? "", content?.detail || content?.title || `Error ${answer.status}`, retry);
}
