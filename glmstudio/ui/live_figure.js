// Runs once in the browser when the chart's place is there; `element`, `props` and `watch` come from gr.HTML.
const plot = element.querySelector(".live-figure-plot");
const hint = element.querySelector(".live-figure-hint");

let logarithmic = false;

function themed(layout) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--glm-line"), linecolor: colour("--glm-line"), zeroline: false };
  return {
    ...layout,
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

function draw() {
  if (held) return;
  const value = props.value ? JSON.parse(props.value) : {};
  plot.style.display = value.figure ? "" : "none";
  hint.textContent = value.hint ?? "";
  if (!value.figure) return;
  Plotly.react(plot, value.figure.data, themed(value.figure.layout), configured(value.words));
}

watch("value", draw);
const recolour = new MutationObserver(draw);
for (const node of [document.documentElement, document.body]) {
  recolour.observe(node, { attributes: true, attributeFilter: ["class"] });
}
// A chart drawn in a tab that is not in view has no size yet.
new ResizeObserver(() => {
  if (plot.offsetWidth && plot.data) Plotly.Plots.resize(plot);
}).observe(element);
draw();
