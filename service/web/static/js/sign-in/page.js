// Signing in: with a token that is typed, or with a code that the link of `make run` carries behind its #.

import { ApiError, signInOrOut } from "../shared/api.js";
import { byId, byIdAs, setText } from "../shared/dom.js";

const form = byId("sign-in");
const token = byIdAs("token", HTMLInputElement);
const problem = byId("problem");

/** @param {{ token: string } | { code: string }} body */
async function signIn(body) {
  form.setAttribute("aria-busy", "true");
  setText(problem, "");
  try {
    await signInOrOut("/sign-in", body);
    location.replace(back());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    setText(problem, words(error, "code" in body));
    token.focus();
  } finally {
    form.removeAttribute("aria-busy");
  }
}

/** Where the reader came from; only ever a page of this service. */
function back() {
  const url = new URL(new URLSearchParams(location.search).get("back") ?? "/", location.origin);
  // "/.//elsewhere" is of this origin, and its path alone would be an address of another.
  return url.origin === location.origin && !url.pathname.startsWith("//") ? url.href : "/";
}

/**
 * @param {ApiError} error
 * @param {boolean} isCode
 */
function words(error, isCode) {
  if (error.status === 429) return `${capital(error.message)}. Try again in ${error.retrySeconds ?? 60} seconds.`;
  if (isCode && error.status === 401) return "This link has expired. Sign in with a token instead.";
  return `${capital(error.message)}.`;
}

/** @param {string} text */
function capital(text) {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (token.value.trim()) signIn({ token: token.value.trim() });
  else token.focus();
});

const code = new URLSearchParams(location.hash.slice(1)).get("code");
if (code) {
  // Out of the address, so that it is in no history and no bookmark.
  history.replaceState(null, "", location.pathname + location.search);
  signIn({ code });
} else {
  token.focus();
}
