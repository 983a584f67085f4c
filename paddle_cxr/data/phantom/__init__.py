"""Built-in data: procedural frontal chest radiographs with known findings, masks, boxes and reports.

    from paddle_cxr.data.phantom import CLASSES, draw
    film = draw("covid", seed=0, index=12, size=224)
    film.image, film.lesion_mask, film.boxes, film.report["impression"], film.report_zh["impression"]

Phantoms let every task of the toolkit run, and be checked against ground truth, on a machine with no data set. They are
drawings: a figure measured on them says that the code works, never that a model does.
"""

from paddle_cxr.data.phantom.findings import DRAWERS, Finding
from paddle_cxr.data.phantom.generator import CLASSES, Phantom, PlacedFinding, draw, draw_image

__all__ = ["CLASSES", "DRAWERS", "Finding", "Phantom", "PlacedFinding", "draw", "draw_image"]
