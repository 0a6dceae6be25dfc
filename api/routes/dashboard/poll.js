// When is something asked again? Every so often while somebody looks; later and later while nobody answers.

export function poll(seconds, ask, onError = () => {}) {
  let failed = 0;
  let timer = null;
  const run = async () => {
    clearTimeout(timer);
    try {
      await ask();
      failed = 0;
    } catch (error) {
      failed += 1;
      onError(error);
      if (!("status" in error)) console.error(error);
    }
    if (!document.hidden) timer = setTimeout(run, 1000 * seconds * Math.min(2 ** failed, 16));
  };
  document.addEventListener("visibilitychange", () => document.hidden || run());
  run();
  return run;
}
