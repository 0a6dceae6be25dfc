// When is something asked again? Every so often while it is seen; later and later while nobody answers.

/** Ask again and again, between `start` and `stop`, and while the tab is looked at. `run` asks at once. */
export class Poll {
  #timer = null;
  #failed = 0;
  #on = false;
  #ask;
  #seconds;
  #onError;

  constructor(seconds, ask, onError = () => {}) {
    [this.#seconds, this.#ask, this.#onError] = [seconds, ask, onError];
    document.addEventListener("visibilitychange", () => document.hidden || !this.#on || this.run());
  }

  /** Ask from now on, and at once; return whether it was not asked before. */
  start() {
    if (this.#on) return false;
    this.#on = true;
    this.run();
    return true;
  }

  stop() {
    this.#on = false;
    clearTimeout(this.#timer);
  }

  async run() {
    clearTimeout(this.#timer);
    try {
      await this.#ask();
      this.#failed = 0;
    } catch (error) {
      this.#failed += 1;
      this.#onError(error);
      if (!("status" in error)) console.error(error);
    }
    clearTimeout(this.#timer);
    if (this.#on && !document.hidden) this.#timer = setTimeout(() => this.run(), 1000 * this.#seconds * Math.min(2 ** this.#failed, 16));
  }
}
