// A link to the picture of what is shown, which needs no token: for a wiki, a README, a start page.

import { ApiError, post } from "../shared/api.js";
import { find, setText } from "../shared/dom.js";

/**
 * The form in `menu` copies the link to what `asked()` names; `words` says how it went. The menu closes as menus do: by
 * Escape, or a click elsewhere.
 * @param {HTMLDetailsElement} menu
 * @param {HTMLElement} words
 * @param {() => { server: string, interface: string | null, period: string }} asked
 */
export function offerPicture(menu, words, asked) {
  const form = find(menu, "form", HTMLFormElement);
  const theme = find(form, "[name=theme]", HTMLSelectElement);
  menu.addEventListener("toggle", () => setText(words, ""));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    find(menu, "summary", HTMLElement).focus();
  });
  addEventListener("pointerdown", (event) => {
    if (event.target instanceof Node && !menu.contains(event.target)) menu.open = false;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { server, interface: name, period } = asked();
    try {
      const made = await post("/api/v1/pictures", {
        body: { server_id: server, metric: "network", interface: name, expires_in_days: null },
      });
      const link = new URL(made.path, location.origin);
      link.searchParams.set("period", period);
      link.searchParams.set("theme", theme.value);
      await copy(link.href);
      setText(words, "Copied.");
    } catch (error) {
      setText(words, error instanceof ApiError ? `${error.message}.` : "This browser does not allow pages to copy.");
    }
  });
}

/**
 * Where a page came by plain http from another machine, it has no clipboard but the old one.
 * @param {string} text
 */
async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  if (!isDone) throw new Error("not copied");
}
