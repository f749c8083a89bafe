// A form that knows which version it shows: what somebody else changes is shown as soon as it is known, unless the form is
// being filled in, and is never overwritten.

import { make, setText } from "../shared/dom.js";
import { saving } from "./saving.js";

/** A form in a panel: asks for what it shows, and sends what it says. */
export class Part {
  /**
   * @param {string} title
   * @param {{ mayChange: boolean, submit: string, fields: HTMLElement[], more?: HTMLElement[] }} options
   */
  constructor(title, { mayChange, submit, fields, more = [] }) {
    this.problem = make("p", { class: "problem", role: "alert" });
    this.said = make("p", { class: "muted said", role: "status" });
    this.save = make("button", { type: "submit", class: "primary" }, submit);
    // Closed until it shows what is set: whatever is sent before would overwrite it unseen.
    this.mayChange = mayChange;
    this.inside = make("fieldset", { class: "plain", disabled: true }, ...fields, make("div", { class: "actions" }, this.save, ...more));
    this.form = make("form", { class: "alert-form", "aria-label": title }, this.inside, this.said, this.problem);
    this.element = make("div", { class: "panel" }, make("h2", {}, title), this.form);
    this.shown = "\n"; // the version that the form shows; no version is this
    this.isDirty = false;
    this.form.addEventListener("input", () => this.touch());
    this.form.addEventListener("change", () => this.touch());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(() => this.put(), "Saved.");
    });
  }

  /** Takes changes from now on, of those who may make them. */
  open() {
    this.inside.disabled = !this.mayChange;
  }

  touch() {
    this.isDirty = true;
    setText(this.said, "");
  }

  /** @returns {Promise<unknown>} */
  put() {
    throw new Error("not here");
  }

  /** Shows what is set, asked for again. @returns {Promise<void>} */
  reload() {
    throw new Error("not here");
  }

  /**
   * Whether an answer of this version has to be shown; if so, it counts as shown.
   * @param {string} version
   */
  isNews(version) {
    if (this.shown === version) return false;
    if (this.isDirty) {
      setText(this.said, "Someone else has changed this in the meantime.");
      return false;
    }
    this.shown = version;
    return true;
  }

  /**
   * @param {() => Promise<unknown>} request
   * @param {string} words of success
   */
  async send(request, words) {
    const reload = () => {
      this.isDirty = false;
      this.shown = "\n";
      setText(this.said, "");
      this.reload();
    };
    if (!await saving(this.problem, request, { button: this.save, onReload: reload })) return;
    reload();
    setText(this.said, words);
  }
}
