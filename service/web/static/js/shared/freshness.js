// Keeping a page fresh: the one module that knows when to ask again. A page hands in tasks, each of which asks for
// something and shows it. They run while the page is visible, are retried with growing pauses after a failure, and as
// long as one fails, a line at the top of the page says so and how old the data is.

import { ApiError } from "./api.js";
import { setText } from "./dom.js";
import { clock } from "./format.js";

const RETRY_SECONDS = [1, 2, 4, 8, 10];

/** @typedef {(signal: AbortSignal) => Promise<void> | void} Ask asks and shows; throws ApiError */

/** What a page asks for again and again, one request at a time. */
class Task {
  /**
   * @param {Freshness} page
   * @param {Ask} ask
   * @param {number | null} everySeconds
   */
  constructor(page, ask, everySeconds) {
    this.page = page;
    this.ask = ask;
    this.everySeconds = everySeconds;
    /** @type {unknown} */
    this.problem = null; // of the last attempt
    this.failures = 0; // in a row
    this.failedAt = 0;
    this.freshAt = 0; // ms since 1970; 0: nothing came yet
    this.dueAt = Infinity; // by performance.now(), like the next
    this.notBefore = 0; // after a failure
    /** @type {AbortController | null} */
    this.running = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /** Asks now, and in place of the request under way: what the reader wants to see has changed. */
  restart() {
    this.running?.abort();
    this.running = null;
    this.notBefore = 0;
    this.soon();
  }

  /** Asks in this many seconds at the latest; after a failure, or after a request under way, not before its turn. */
  soon(seconds = 0) {
    this.dueAt = Math.min(this.dueAt, performance.now() + seconds * 1000);
    this.arm();
  }

  /** Ends what is under way, to be asked for again when the page is visible again. */
  pause() {
    clearTimeout(this.timer);
    if (!this.running) return;
    this.running.abort();
    this.running = null;
    this.dueAt = performance.now();
  }

  arm() {
    clearTimeout(this.timer);
    if (!this.page.isActive || this.running || this.dueAt === Infinity) return;
    const wait = Math.max(this.dueAt, this.notBefore) - performance.now();
    this.timer = setTimeout(() => this.run(), Math.max(0, wait));
  }

  async run() {
    const controller = new AbortController();
    this.running = controller;
    this.dueAt = Infinity;
    let again = this.everySeconds;
    try {
      await this.ask(controller.signal);
      if (controller.signal.aborted) return;
      this.problem = null;
      this.failures = 0;
      this.freshAt = Date.now();
    } catch (error) {
      if (controller.signal.aborted) return;
      if (error instanceof ApiError && error.status === 401) {
        this.page.stop(); // the sign-in page comes
        return;
      }
      again = this.fail(error);
    }
    this.running = null;
    if (again === null) this.arm();
    else this.soon(again);
    this.page.showState();
  }

  /**
   * @param {unknown} error
   * @returns {number} seconds until the next attempt
   */
  fail(error) {
    const asked = (error instanceof ApiError && error.retrySeconds) || 0;
    const pause = Math.max(asked, RETRY_SECONDS[Math.min(this.failures, RETRY_SECONDS.length - 1)] ?? 0);
    if (!this.failures) this.failedAt = Date.now();
    this.problem = error;
    this.failures += 1;
    this.notBefore = performance.now() + pause * 1000;
    if (!(error instanceof ApiError)) console.error(error); // a fault of the page's own
    return pause;
  }
}

/** The tasks of a page, and the line that says what is wrong. */
export class Freshness {
  /** @param {HTMLElement} line */
  constructor(line) {
    this.line = line;
    /** @type {Task[]} */
    this.tasks = [];
    /** @type {(() => void)[]} */
    this.tickers = [];
    this.isStopped = false;
    document.addEventListener("visibilitychange", () => this.resume());
    addEventListener("online", () => {
      for (const task of this.tasks) if (task.problem) task.restart();
    });
    setInterval(() => {
      if (this.isActive) for (const show of this.tickers) show();
    }, 1000);
  }

  get isActive() {
    return !this.isStopped && !document.hidden;
  }

  /**
   * A task, which begins with its first `soon` or `restart`; `everySeconds` after it was answered it asks again, where
   * it is not null. @param {Ask} ask @param {number | null} [everySeconds]
   */
  task(ask, everySeconds = null) {
    const task = new Task(this, ask, everySeconds);
    this.tasks.push(task);
    return task;
  }

  /**
   * Calls `show` every second while the page is visible: for ages, which grow by themselves.
   * @param {() => void} show
   */
  tick(show) {
    this.tickers.push(show);
  }

  /** Asks for nothing any more. */
  stop() {
    this.isStopped = true;
    this.resume();
    this.line.hidden = true;
  }

  resume() {
    for (const task of this.tasks) {
      if (this.isActive) task.arm();
      else task.pause();
    }
  }

  showState() {
    const failing = this.tasks.filter((task) => task.problem);
    this.line.hidden = this.isStopped || !failing.length;
    document.body.classList.toggle("stale", !this.line.hidden);
    if (!this.line.hidden) setText(this.line, stateWords(failing));
  }
}

/** @param {Task[]} failing */
function stateWords(failing) {
  const [first] = [...failing].sort((one, other) => one.failedAt - other.failedAt);
  // A page that shows something shows what came before the first of them failed.
  const fresh = Math.min(...failing.map((task) => task.freshAt).filter((at) => at > 0));
  const since = fresh === Infinity ? "" : ` Showing data from ${clock(fresh)}.`;
  return `${problemWords(first?.problem)}.${since} Retrying automatically.`;
}

/** @param {unknown} problem */
function problemWords(problem) {
  if (!(problem instanceof ApiError)) return "This page could not display the response";
  return problem.code === "database_unavailable" ? "The service cannot reach its database" : problem.message;
}
