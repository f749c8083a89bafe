// Sending a change that others may have made too: a stale one is refused, and nothing is overwritten.

import { ApiError } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { make } from "../shared/dom.js";

const STALE = "Someone else has changed this in the meantime. Nothing was overwritten.";

/**
 * As attempt() does, with a way out where somebody else was faster. Resolves to whether it succeeded.
 * @param {HTMLElement} problem
 * @param {() => Promise<unknown>} request throws ApiError
 * @param {{ button?: Element | null, onReload: () => void }} options `onReload`: shows what is set now
 */
export async function saving(problem, request, { button = null, onReload }) {
  let isStale = false;
  const isSaved = await attempt(problem, async () => {
    try {
      await request();
    } catch (error) {
      isStale = error instanceof ApiError && error.code === "changed";
      throw isStale ? new ApiError(412, "changed", STALE.slice(0, -1)) : error;
    }
  }, button);
  if (isStale) {
    const reload = make("button", { type: "button" }, "Show the current values");
    reload.addEventListener("click", () => {
      problem.replaceChildren();
      onReload();
    });
    problem.append(" ", reload);
  }
  return isSaved;
}
