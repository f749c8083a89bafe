// What every page of a signed-in user has: colours, units and sign-out in its header.

import { signInOrOut, toSignIn } from "./api.js";
import { choice, choose, following, onChoice } from "./choices.js";
import { byId, setText } from "./dom.js";

const THEMES = { system: "Colours: system", light: "Colours: light", dark: "Colours: dark" };

function show() {
  const theme = choice("theme");
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = byId("theme");
  button.setAttribute("aria-label", THEMES[theme]);
  button.title = THEMES[theme];
  button.dataset.value = theme;
  const units = byId("units");
  setText(units, choice("units") === "bits" ? "bit/s" : "B/s");
  units.setAttribute("aria-label", `Rates in ${choice("units")} per second`);
  units.title = `Rates in ${choice("units")} per second; click to change`;
}

byId("theme").addEventListener("click", () => choose("theme", following("theme")));
byId("units").addEventListener("click", () => choose("units", following("units")));
byId("sign-out").addEventListener("click", async () => {
  try {
    await signInOrOut("/sign-out", {});
  } finally {
    toSignIn();
  }
});
onChoice(show);
show();
