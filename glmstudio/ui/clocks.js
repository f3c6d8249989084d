// Gradio's progress clocks count at every frame while an event is under way, also where nobody sees them, and that of
// its loading screen for ever: it is taken away while it still runs. Twice a second is enough for a clock. Knows no tab.
(() => {
  const frames = window.requestAnimationFrame;
  const clock = (count) => setTimeout(() => count(performance.now()), 500);
  const settle = (value) => Object.defineProperty(window, "requestAnimationFrame", { value, configurable: true, writable: true });
  // Their module takes the function once, while it is read: who asks stands in the second line of the trace.
  Object.defineProperty(window, "requestAnimationFrame", {
    configurable: true,
    get() {
      if (!/\/statustracker-[^/]*\.js/.test(new Error().stack)) return frames;
      settle(frames);
      return clock;
    },
    set: settle,
  });
})();
