// The service's API, as whoever is signed in in this browser. Answers that have an ETag are kept by the browser itself,
// which asks whether they are still right and gets 304 and no body.

const SECONDS = 20;

/** What went wrong, in words for people. `status` is 0 where the service did not answer at all. */
export class ApiError extends Error {
  constructor(status, code, words, retrySeconds = null) {
    super(words);
    this.status = status;
    this.code = code;
    this.retrySeconds = retrySeconds;
  }
}

/**
 * The JSON at `path`, such as `/api/v1/servers`; `query` may hold lists, and null is left out.
 * Throws ApiError; who is not signed in is sent to the sign-in page, and comes back from there.
 * An aborted `signal` throws an AbortError.
 */
export function get(path, { query = {}, signal } = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one != null) search.append(name, one);
  }
  return ask(search.size ? `${path}?${search}` : path, { signal });
}

/** Sends `body` as JSON; the answer's JSON, or null where it has none. Throws as `get` does. */
export function post(path, body, { signal } = {}) {
  return ask(path, {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal,
  });
}

/** Goes to the sign-in page, which leads back here. */
export function toSignIn() {
  const back = location.pathname + location.search;
  location.assign(back === "/" ? "/sign-in" : `/sign-in?back=${encodeURIComponent(back)}`);
}

async function ask(url, options) {
  let answer;
  let body;
  try {
    const limit = AbortSignal.timeout(SECONDS * 1000);
    const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
    answer = await fetch(url, { ...options, signal, credentials: "same-origin" });
    body = answer.status === 204 ? null : await answer.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    // Something in front of the service may answer in its stead, and not in JSON.
    throw new ApiError(answer?.status ?? 0, "unreachable", "The service does not answer");
  }
  if (answer.ok) return body;
  if (answer.status === 401 && !url.startsWith("/sign-in")) toSignIn();
  const retry = Number(answer.headers.get("Retry-After")) || null;
  throw new ApiError(answer.status, body?.code ?? "", body?.detail || body?.title || `Error ${answer.status}`, retry);
}
