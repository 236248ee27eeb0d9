"""The curves of a run: plain numbers at the axes, and every curve visible."""

import json

import numpy as np
import pytest
from matplotlib import colors, figure
from PIL import Image

from train.curves import FEWEST, FIGURES, draw_curves


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws metrics; gives the figure as well as the file."""
    kept = []
    save = figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, out: kept.append(self) or save(self, out))

    def draw(losses, readings, every=10):
        lines = [{"step": every * n, "group": "train", "loss": x} for n, x in enumerate(losses, 1)]
        lines += [{"step": every * n, "group": "held_out", **x} for n, x in enumerate(readings, 1)]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "held-out words")
        return kept[-1] if kept else None, tmp_path / "curves.png"

    return draw


@pytest.mark.parametrize(
    ("every", "losses"),
    [(1, [4.4, 3.9, 3.8, 3.5]), (50, [5.0, 2.0, 1.0, 0.3]), (200_000, [4.0, 4.01, 4.0, 4.01]), (50, [2.0] * 4),
     (1, [9e-3, 5e-3, 1e-3, 3e-4])],
)  # fmt: skip
def test_axes_have_plain_numbers(drawn, every, losses):
    """What is at one axis does not depend on what is at the other."""
    made, _ = drawn(losses, [dict.fromkeys(FIGURES, 0.5)], every)
    for axes in made.axes:
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            shown = [one for one in axis.get_major_ticks() if low <= one.get_loc() <= high]
            texts = [one.label1.get_text() for one in shown]
            assert len(texts) >= (2 if axis is axes.yaxis else 1)
            assert len(set(texts)) == len(texts)
            assert [float(text.replace(",", "")) for text in texts] == pytest.approx([t.get_loc() for t in shown])
            assert not axis.get_minor_ticks()
            assert not axis.get_offset_text().get_text()


def test_equal_curves_all_show(drawn):
    made, path = drawn([3.0, 2.0, 1.0, 0.9], [dict.fromkeys(FIGURES, 0.25), dict.fromkeys(FIGURES, 0.5)] * 20)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    legend = made.axes[1].get_legend().get_window_extent()
    low = round(made.axes[1].get_window_extent().x0)
    for line in made.axes[1].lines:
        colour = np.array(colors.to_rgb(line.get_color())) * 255
        found = (np.abs(pixels - colour).max(-1) < 3)[:, low:]
        found[:, round(legend.x0) - low :] &= False
        assert found.sum() > 100, line.get_label()


@pytest.mark.parametrize("reports", [0, FEWEST - 1])
def test_nothing_is_drawn_before_it_is_a_curve(drawn, reports):
    made, path = drawn([3.0] * reports, [dict.fromkeys(FIGURES, 0.5)])
    assert made is None
    assert not path.exists()
