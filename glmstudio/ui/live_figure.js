// Runs once in the browser when the chart's place is there; `element` comes from gr.HTML. What it shows comes with the
// looks: {key, counts, figure, words, weights}, a figure and which one it is; {key, counts, more}, the steps and losses
// that its curves grow by; or {key, hint}. `counts` are the losses that are drawn.
const plot = element.querySelector(".live-figure-plot");
const hint = element.querySelector(".live-figure-hint");

let logarithmic = false;

function themed(layout) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--glm-line"), linecolor: colour("--glm-line"), zeroline: false };
  return {
    ...layout,
    // The arrays grow in place.
    datarevision: shown.counts,
    autosize: true,
    font: { color: colour("--glm-muted"), family: style.fontFamily, size: 12 },
    hoverlabel: { bgcolor: colour("--glm-surface"), bordercolor: colour("--glm-line"), font: { color: colour("--glm-text") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--glm-faint"), activecolor: colour("--glm-accent") },
    xaxis: { ...layout.xaxis, ...axis },
    yaxis: { ...layout.yaxis, ...axis, type: logarithmic ? "log" : "linear" },
  };
}

// Plotly draws anew, without the zoom, when its configuration is another object: one for as long as the words last.
let config = null;
let configWords = "";
function configured(words) {
  const now = JSON.stringify(words);
  if (now === configWords) return config;
  const scale = {
    name: "scale",
    title: words.scale,
    icon: { width: 16, height: 16, path: "M1 1v14h14v-1H2V1zM4 3h1c0 6 3 9 9 9v1C7 13 4 10 4 3z" },
    click: () => {
      logarithmic = !logarithmic;
      draw();
    },
  };
  configWords = now;
  config = {
    displaylogo: false,
    displayModeBar: true,
    modeBarButtons: [[scale, "zoom2d", "pan2d", "resetScale2d", "toImage"]],
    locale: "page",
    locales: { page: { dictionary: words } },
  };
  return config;
}

// New points would break off a zoom that is being drawn: they wait until the mouse is let go.
let held = false;
plot.addEventListener("pointerdown", () => (held = true), true);
window.addEventListener("pointerup", () => {
  if (!held) return;
  held = false;
  setTimeout(draw, 50);
}, true);

let shown = { key: "", counts: "", first: "" };
let resting = 0;
let pending = 0;

function draw() {
  pending = 0;
  if (held) return;
  plot.style.display = shown.figure ? "" : "none";
  hint.textContent = shown.hint ?? "";
  if (!shown.figure) return;
  const began = performance.now();
  Plotly.react(plot, shown.figure.data, themed(shown.figure.layout), configured(shown.words));
  // On a slow machine a long curve is drawn less often: drawing takes at most a twentieth of the time.
  resting = performance.now() + 19 * (performance.now() - began);
}

function drawSoon() {
  pending ||= setTimeout(draw, Math.max(0, resting - performance.now()));
}

const trace = (run, part) => shown.figure.data.find(({ uid }) => uid === `${run} ${part}`);

// The exponential mean goes on from its last value, which was corrected for its start.
function grow(run, weight, seen, [steps, losses, devSteps, devLosses]) {
  const smoothed = trace(run, "smoothed");
  let mean = smoothed?.y.length ? smoothed.y.at(-1) * (1 - weight ** seen) : 0;
  steps.forEach((step, at) => {
    trace(run, "train")?.x.push(step);
    trace(run, "train")?.y.push(losses[at]);
    mean = weight * mean + (1 - weight) * losses[at];
    smoothed?.x.push(step);
    smoothed?.y.push(mean / (1 - weight ** (seen + at + 1)));
  });
  trace(run, "dev").x.push(...devSteps);
  trace(run, "dev").y.push(...devLosses);
}

glm.onFeed(
  "train-chart",
  () => ({ chart: shown.key, counts: shown.counts, first: shown.first }),
  ({ more, ...value }) => {
    if (!more) {
      shown = { ...value, first: value.counts ?? "" };
      clearTimeout(pending);
      draw();
      return;
    }
    const seen = shown.counts.split(" ").map(parseFloat).map(Math.floor);
    Object.entries(shown.weights).forEach(([run, weight], at) => grow(run, weight, seen[at], more[at]));
    shown.counts = value.counts;
    drawSoon();
  },
);

const recolour = new MutationObserver(draw);
for (const node of [document.documentElement, document.body]) {
  recolour.observe(node, { attributes: true, attributeFilter: ["class"] });
}
// A chart drawn in a tab that is not in view has no size yet.
new ResizeObserver(() => {
  if (plot.offsetWidth && plot.data) Plotly.Plots.resize(plot);
}).observe(element);
