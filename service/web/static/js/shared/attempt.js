// Changes that a reader asks for: what went wrong is said beside the form or the list.

import { ApiError } from "./api.js";
import { setText } from "./dom.js";

const ONLY_READS = "You are signed in with a token that may only read.";

/**
 * Sends a change, and shows in `problem` why it failed; resolves to whether it did not.
 * @param {HTMLElement} problem
 * @param {() => Promise<unknown>} request throws ApiError
 * @param {Element | null} [button] disabled meanwhile
 */
export async function attempt(problem, request, button = null) {
  setText(problem, "");
  if (button instanceof HTMLButtonElement) button.disabled = true;
  try {
    await request();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    setText(problem, error.status === 403 ? ONLY_READS : `${error.message}.`);
    return false;
  } finally {
    if (button instanceof HTMLButtonElement) button.disabled = false;
  }
}
