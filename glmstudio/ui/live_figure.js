// Runs once in the browser when the chart's place is there; `element`, `props` and `watch` come from gr.HTML.
const plot = element.querySelector(".live-figure-plot");
const hint = element.querySelector(".live-figure-hint");
const buttons = ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"];

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
    yaxis: { ...layout.yaxis, ...axis },
  };
}

function draw() {
  const value = props.value ? JSON.parse(props.value) : {};
  plot.style.display = value.figure ? "" : "none";
  hint.textContent = value.hint ?? "";
  if (!value.figure) return;
  const config = {
    displaylogo: false,
    modeBarButtonsToRemove: buttons,
    locale: "page",
    locales: { page: { dictionary: value.words } },
  };
  Plotly.react(plot, value.figure.data, themed(value.figure.layout), config);
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
