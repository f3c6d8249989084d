"""The loss picture of a run as a PNG, from its metrics. Knows the file only; draws without any global state."""

from pathlib import Path

from glmstudio.training.metrics import read_from

TRAIN_COLOUR, DEV_COLOUR = "#4f7df0", "#e8833a"
# So many points are seen one by one; a single one has no line at all.
MOST_MARKED = 40


def write_picture(metrics_path: Path, path: Path) -> Path:
    """Draws train and dev loss over steps, each point the mean since the point before, and gives `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records, _ = read_from(metrics_path)
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for kind, label, style in (
        ("train", "train loss", {"color": TRAIN_COLOUR, "linewidth": 1.2}),
        ("eval", "dev loss", {"color": DEV_COLOUR, "linewidth": 1.8, "marker": "o", "markersize": 4}),
    ):
        points = [(record.step, record.values["loss"]) for record in records if record.kind == kind]
        if 0 < len(points) <= MOST_MARKED:
            style |= {"marker": "o", "markersize": 4}
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
