// Keeping a page up to date: all of it once, then what changes, by a long poll that the service answers when there is
// something. Each answer is an ordinary one, which every proxy passes on, and each request is checked anew: who is signed
// out is so at the next. While the page is hidden nothing is asked; when it is looked at again, what was missed comes.

import { get } from "./api.js";

const PAUSE_SECONDS = 0.2;
const RETRY_SECONDS = [1, 2, 4, 8, 10];
// All anew, for what no change tells: removed servers, errors, and peaks that have passed.
const ANEW_SECONDS = 60;

/**
 * Keeps on, until the page is left.
 *
 * load(signal)    gets everything anew; resolves to the moment it is of (`at` of /api/v1/fleet)
 * apply(servers)  takes in servers that changed
 * state(problem)  null: all is well, called after each answer; else { since, words, status }, as long as it is not
 */
export function follow({ load, apply, state }) {
  let at = null;
  let loaded = 0;
  let since = null;
  let controller = null;

  async function once(signal) {
    if (at === null || Date.now() - loaded > ANEW_SECONDS * 1000) {
      at = await load(signal);
      loaded = Date.now();
    } else {
      const found = await get("/api/v1/fleet", { query: { since: at }, signal });
      at = found.is_whole ? found.at : null;
      if (found.servers.length) apply(found.servers, found.at);
    }
  }

  async function run(signal) {
    let failures = 0;
    while (!signal.aborted) {
      let pause = PAUSE_SECONDS;
      try {
        await once(signal);
        if (signal.aborted) return;
        failures = 0;
        since = null;
        state(null);
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) return; // the sign-in page comes
        at = null;
        since ??= new Date();
        pause = Math.max(error.retrySeconds ?? 0, RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)]);
        failures += 1;
        state({ since, words: error.message, status: error.status });
        if (error.status === undefined) console.error(error); // a fault of the page's own
      }
      await sleep(pause, signal);
    }
  }

  function look() {
    controller?.abort();
    controller = null;
    if (document.hidden) return;
    controller = new AbortController();
    run(controller.signal);
  }

  document.addEventListener("visibilitychange", look);
  addEventListener("online", look);
  look();
  /** Loads all anew, now. */
  return () => {
    at = null;
    look();
  };
}

function sleep(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
