// How a machine is added: a command that carries an enrolment token, which is made when it is asked for.

import { ApiError, post } from "../shared/api.js";
import { make, setText } from "../shared/dom.js";
import { moment } from "../shared/format.js";

const USES = 20;
const MINUTES = 60;

/** The instructions, as an element. */
export function addMachine() {
  const button = make("button", { type: "button", class: "primary" }, "Make a command");
  const words = make("p", { role: "status" });
  const commands = make("div", { class: "commands" });
  const box = make(
    "div",
    { class: "add-machine" },
    make("p", {}, "To add a machine, run the agent on it: a single file that needs only Python 3.11 or newer. The command "
      + `below contains a token for ${USES} machines, valid for ${MINUTES} minutes; each exchanges it for its own.`),
    button,
    words,
    commands,
  );
  button.addEventListener("click", async () => {
    button.disabled = true;
    setText(words, "");
    try {
      const digest = await digestOfAgent();
      const made = await post("/api/v1/enrolments", { body: { uses: USES, expires_minutes: MINUTES, name: "dashboard" } });
      commands.replaceChildren(
        ...unprotected(),
        command("Try it in the foreground", running(digest, made.token)),
        command("Or install it as a service (Linux with systemd)", installing(digest, made.token)),
        make("p", { class: "muted" }, `The token expires at ${moment(made.expires_at)}. The machine appears here automatically, within a minute.`),
      );
      button.textContent = "Make another";
      button.className = "quiet";
      box.append(button);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setText(words, error.status === 403
        ? "Your token cannot create others. Sign in with the fleet key or an admin token, or ask an administrator."
        : `${error.message}.`);
    } finally {
      button.disabled = false;
    }
  });
  return box;
}

/** The SHA-256 of the agent's file in hexadecimal digits, as the service says it (RFC 9530). */
async function digestOfAgent() {
  // Whoever has it already is sent the headers alone.
  const answer = await fetch("/linkbeat-agent.pyz", { headers: { "If-None-Match": "*" }, cache: "no-store" });
  const digest = /sha-256=:([^:]+):/.exec(answer.headers.get("Repr-Digest") ?? "");
  if (!digest?.[1]) throw new ApiError(answer.status, "", "The service does not provide the digest of its agent file");
  return Array.from(atob(digest[1]), (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
}

/** A warning where neither the page nor the file comes by a protected way, as far as another machine. */
function unprotected() {
  const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  return location.protocol === "https:" || isLocal
    ? []
    : [make("p", { class: "warning", role: "alert" }, "This page came over plain HTTP. Anybody on the network path can change "
      + "the commands below, the file and its digest, and read the token. Use HTTPS, or a network that you trust.")];
}

/**
 * @param {string} digest
 * @param {string} token
 */
function running(digest, token) {
  return [
    fetching(), checking(digest), `LINKBEAT_URL=${quoted(location.origin)}`, `LINKBEAT_API_KEY=${token}`, "python3 linkbeat-agent.pyz run",
  ].join(" \\\n  ");
}

/**
 * By a pipe, and not as an argument, which ps would show to every user of the machine.
 * @param {string} digest
 * @param {string} token
 */
function installing(digest, token) {
  return [
    fetching(), checking(digest), `echo ${token} |`,
    `sudo python3 linkbeat-agent.pyz install --url ${quoted(location.origin)} --token-file -`,
  ].join(" \\\n  ");
}

function fetching() {
  return `curl -fsSO ${quoted(`${location.origin}/linkbeat-agent.pyz`)} &&`;
}

/** @param {string} digest */
function checking(digest) {
  return `echo '${digest}  linkbeat-agent.pyz' | sha256sum -c - &&`;
}

/**
 * For a POSIX shell.
 * @param {string} text
 */
function quoted(text) {
  return /^[\w:/.[\]-]+$/.test(text) && !text.includes("[") ? text : `'${text}'`;
}

/**
 * @param {string} words
 * @param {string} text
 */
function command(words, text) {
  const code = make("pre", { tabindex: "0" }, make("code", {}, text));
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    let done = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Over plain HTTP, browsers give no page the clipboard: it is marked, to be copied by hand.
      getSelection()?.selectAllChildren(code);
      done = "Press Ctrl+C";
    }
    setText(button, done);
    setTimeout(() => setText(button, "Copy"), 3000);
  });
  return make("figure", {}, make("figcaption", {}, words, button), code);
}
