"""Segmentation: joint augmentation, masks as bits, losses, scores at the published size, and recipes with mistakes."""

import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from paddle_cxr.data import transforms as T
from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources import FindingsFile
from paddle_cxr.engine.distributed import World
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.surface import hausdorff
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.segmentation.augment import build_joint, move_nearest
from paddle_cxr.tasks.segmentation.data import (
    ImagesWithMasks,
    MaskGeometry,
    MaskPictures,
    SegmentationData,
    load_segmentation,
)
from paddle_cxr.tasks.segmentation.losses import BCEDiceLoss
from paddle_cxr.tasks.segmentation.models import Segmenter, settle
from paddle_cxr.tasks.segmentation.recipe import load
from paddle_cxr.tasks.segmentation.scoring import METRICS, Scores, masks_at_full_size, score, spacing_of, summarise
from paddle_cxr.tasks.segmentation.task import SegmentationTask

RECIPE = """
Global: {{task: segmentation, output_dir: {output}, device: cpu, seed: 3, epochs: 2, image_shape: [1, 32, 32],
         findings: [lung, effusion], micro_batches: 2, ranks: 1}}
Arch: {{encoder: ResNet18, freeze_encoder: false, widths: [8, 8, 8, 8, 8]}}
Optimizer: {{name: AdamW, lr: {{name: Constant, learning_rate: 1.0e-3}}}}
DataLoader:
  Source: {{name: PhantomFindings, count: 24, seed: 5, size: 48, findings: [normal, effusion]}}
  Split: {{name: PatientSplit, val: 0.25, test: 0.25}}
  cache: {{mode: memory}}
  Train:
    transform_ops: [{{name: RandomAffine}}, {{name: RandomHorizontalFlip}}, {{name: RandomContrast}}]
    sampler: {{batch_size: 8}}
  Eval: {{sampler: {{batch_size: 4}}}}
  Test: {{subset: test}}
Metric: {{bootstrap: 50, figures: 2}}
"""


def write_recipe(folder: Path) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE.format(output=folder / "out"), encoding="utf-8")
    return file


def settled(folder: Path) -> Loaded:
    loaded = load(write_recipe(folder))
    settle(loaded.recipe)
    return loaded


# --- augmentation --------------------------------------------------------------------------------------------------

EVERY = [{"name": "RandomOrder", "transforms": [
    {"name": "RandomAffine", "degrees": 20, "translate": 0.1, "scale": [0.8, 1.2], "prob": 0.8},
    {"name": "RandomResizedCrop", "prob": 0.5}, {"name": "RandomHorizontalFlip"}, {"name": "RandomRotation"},
    [{"name": "RandomBrightness"}, {"name": "GaussianNoise"}, {"name": "GaussianBlur"}, {"name": "RandomGamma"}]]}]


@pytest.mark.parametrize("color", [False, True])
def test_the_image_is_augmented_as_without_masks(color):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3) if color else (40, 50), dtype=np.uint8)
    stack = np.dstack([image, np.zeros((40, 50), np.uint8)])
    for seed in range(20):
        found = build_joint(EVERY, "x")(stack, np.random.default_rng(seed))
        wanted = T.build_transforms(EVERY, "x")(image, np.random.default_rng(seed))
        assert np.array_equal(found[..., :3] if color else found[..., 0], wanted)


def test_masks_go_where_the_image_goes():
    """A picture that is its own mask, smooth as none is: moved and cut at half, both are the same but for the edge."""
    rows, columns = np.mgrid[:64, :64]
    mask = ((rows - 25) ** 2 + (columns - 40) ** 2 < 250).astype(np.uint8)
    stack = np.dstack([mask * 255, mask * 5])
    moving = [{"name": "RandomAffine", "degrees": 30, "translate": 0.2, "scale": [0.7, 1.3], "prob": 1.0},
              {"name": "RandomHorizontalFlip"}, {"name": "RandomResizedCrop", "prob": 1.0}]
    for seed in range(30):
        found = build_joint(moving, "x")(stack, np.random.default_rng(seed))
        assert set(np.unique(found[..., 1])) <= {0, 5}  # bits are never mixed
        different = (found[..., 0] > 127) != (found[..., 1] > 0)
        assert different.sum() <= 0.1 * max((found[..., 1] > 0).sum(), 100)


def test_nearest_pixel_is_the_one_the_matrix_says():
    plane = np.arange(1, 31, dtype=np.uint8).reshape(5, 6)
    rng = np.random.default_rng(1)
    for matrix in T.RandomAffine(degrees=40, translate=0.3, scale=(0.6, 1.5)).sample(rng, 20, plane.shape):
        wanted = np.zeros_like(plane)
        for y, x in np.ndindex(plane.shape):
            from_x, from_y = matrix @ (x + 0.5, y + 0.5, 1)
            if 0 <= from_x < 6 and 0 <= from_y < 5:
                wanted[y, x] = plane[int(from_y), int(from_x)]
        assert (move_nearest(plane, matrix) != wanted).sum() <= 1  # a place on the very edge may round either way


def test_a_transform_nobody_spoke_of_is_refused():
    class Warp(T.RandomTransform):
        pass

    from paddle_cxr.tasks.segmentation import augment

    with pytest.raises(UserError, match="x：Warp 不能用于分割"):
        augment._check(T.Compose([T.RandomOrder([]), Warp(0.5)]), "x")


# --- masks as bits -------------------------------------------------------------------------------------------------

class Drawn(FindingsSource):
    """Images of different sizes with random masks of many findings; some are not annotated."""

    def __init__(self, count=4, findings=11, seed=0):
        rng = np.random.default_rng(seed)
        names = [f"f{k}" for k in range(findings)]
        shapes = [tuple(rng.integers(20, 60, 2)) for _ in range(count)]
        self.pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
        self.masks = {(i, name): rng.random(shapes[i]) < 0.3 for i in range(count) for name in names}
        self.unknown = {(0, "f1"), (1, "f10")}
        records = [FindingsRecord(f"image/{i}", 0, f"patient {i // 2}", labels=dict.fromkeys(names, 1))
                   for i in range(count)]
        super().__init__("drawn", "drawn", [ClassInfo(name, name, name) for name in names], records)

    def read(self, index):
        return self.pictures[index]

    def annotated(self, index, finding):
        return (index, finding) not in self.unknown

    def mask(self, index, finding, shape):
        assert tuple(shape) == self.pictures[index].shape
        return self.masks[index, finding]


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
def test_bits_are_the_masks_of_preprocess(resize):
    source, names = Drawn(), [f"f{k}" for k in range(11)]
    preprocess = Preprocess((1, 24, 32), resize=resize)
    pictures, geometry = MaskPictures(source, names), MaskGeometry(preprocess, 2)
    for index in range(4):
        bits = geometry.geometry(pictures.read(index))
        assert bits.shape == geometry.cached_shape == (24, 32, 2)
        for k, name in enumerate(names):
            wanted = preprocess.mask_geometry(source.masks[index, name]) & source.annotated(index, name)
            assert np.array_equal(bits[..., k // 8] >> (k % 8) & 1, wanted)


def test_images_and_masks_come_together(tmp_path):
    said = []
    data = load_segmentation(settled(tmp_path), said.append)
    assert data.masks.shape == (24, 32, 32, 1) and data.annotated.all() and "24/24 张有标注" in "".join(said)
    subset = data.images.positions("val")
    together = ImagesWithMasks(data, subset)
    assert together.shape == (len(subset), 32, 32, 2) and len(together) == len(subset)
    assert np.array_equal(together[1][..., 0], data.images.images[subset[1]])
    lung = data.images.preprocess.mask_geometry(data.images.source.mask(int(subset[1]), "lung", (48, 48)))
    assert np.array_equal(together[1][..., 1] & 1, lung) and lung.any()


def test_the_cache_of_masks_follows_the_findings_and_the_mask_files(tmp_path):
    source = Drawn()
    names = {MaskPictures(source, chosen).fingerprint() for chosen in (["f0"], ["f1"], ["f0", "f1"], ["f1", "f0"])}
    assert len(names) == 4
    for name in ("a.png", "m.png"):
        Image.new("L", (4, 4), 255).save(tmp_path / name)
    for list_file, text in (("index.csv", "file,lung_mask\na.png,m.png\n"),
                            ("index.jsonl", '{"file": "a.png", "masks": {"lung": "m.png"}}\n')):
        (tmp_path / list_file).write_text(text)
        columns = {"lung_mask": "lung"} if list_file == "index.csv" else None
        films = FindingsFile(str(tmp_path), list_file, mask_column=columns)
        before = MaskPictures(films, ["lung"]).fingerprint()
        assert MaskPictures(films, ["lung"]).fingerprint() == before
        Image.new("L", (4, 4), 0).save(tmp_path / "m.png")  # drawn anew: the kept mask would be the old one
        os.utime(tmp_path / "m.png", (1, 1 + len(text)))
        assert MaskPictures(films, ["lung"]).fingerprint() != before
    # A name longer than the system allows has no state to follow; reading it is the error.
    (tmp_path / "index.csv").write_text(f"file,lung_mask\na.png,{'m' * 300}.png\n")
    films = MaskPictures(FindingsFile(str(tmp_path), "index.csv", mask_column={"lung_mask": "lung"}), ["lung"])
    assert films.fingerprint()
    with pytest.raises(UserError, match="掩膜（mask）"):
        films.read(0)


def test_the_whole_data_set_is_divided_and_then_what_has_no_mask_is_left_out(tmp_path, monkeypatch):
    """So that a patient is in the same subset here as in other tasks with the same Split."""
    from paddle_cxr.data.sources.phantom_findings import PhantomFindings

    everything = load_segmentation(settled(tmp_path), lambda _: None)
    of = dict(zip([record.path for record in everything.images.source.records], everything.images.subsets, strict=True))
    known = PhantomFindings.annotated
    monkeypatch.setattr(PhantomFindings, "annotated", lambda self, index, name: index % 3 and known(self, index, name))
    some = load_segmentation(settled(tmp_path), lambda _: None)
    records = some.images.source.records
    assert len(records) == 16 and [of[record.path] for record in records] == some.images.subsets


def test_a_finding_without_any_annotation_is_an_error(tmp_path):
    for name, hint in (("effusoin", "，是不是 effusion？"), ("lungs", "，是不是 lung？（数据里有：effusion、lung）"),
                       ("covid", "")):
        loaded = load(write_recipe(tmp_path), [f"Global.findings=[lung, {name}]"])
        with pytest.raises(UserError, match=f"Global.findings：数据 phantom 里没有 {name} 的掩膜.*{hint}"):
            load_segmentation(loaded, lambda _: None)


# --- losses --------------------------------------------------------------------------------------------------------

def test_bce_dice_is_its_formula():
    rng = np.random.default_rng(0)
    logits, masks = rng.standard_normal((3, 2, 5, 6)).astype(np.float32), (rng.random((3, 2, 5, 6)) < 0.4).astype("f4")
    masks[0, 1] = 0
    annotated = np.array([[1, 1], [0, 1], [1, 0]], np.float32)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    total = 0.0
    for n, k in np.argwhere(annotated):
        entropy = -np.mean(np.where(masks[n, k] > 0, np.log(p[n, k]), np.log(1 - p[n, k])))
        overlap = (2 * (p[n, k] * masks[n, k]).sum() + 1.5) / (p[n, k].sum() + masks[n, k].sum() + 1.5)
        total += 0.7 * entropy + 2 * (1 - overlap)
    loss = BCEDiceLoss(bce=0.7, dice=2.0, smooth=1.5)
    found = loss(paddle.to_tensor(logits), paddle.to_tensor(masks), paddle.to_tensor(annotated))
    assert float(found) == pytest.approx(total / 6, rel=1e-5)
    parts = [float(loss(*(paddle.to_tensor(one[part]) for one in (logits, masks, annotated)))) * share
             for part, share in ((slice(0, 1), 1 / 3), (slice(1, 3), 2 / 3))]
    assert sum(parts) == pytest.approx(float(found), rel=1e-5)  # the mean of its micro-batches


def test_what_nobody_annotated_teaches_nothing():
    logits = paddle.randn([2, 2, 4, 4])
    logits.stop_gradient = False
    masks, annotated = paddle.ones([2, 2, 4, 4]), paddle.to_tensor([[1.0, 0.0], [0.0, 0.0]])
    BCEDiceLoss()(logits, masks, annotated).backward()
    learned = np.abs(logits.grad.numpy()).sum(axis=(2, 3)) > 0
    assert learned.tolist() == [[True, False], [False, False]]
    for wrong in ({"bce": -1.0}, {"bce": 0.0, "dice": 0.0}, {"smooth": 0.0}):
        with pytest.raises(UserError, match="smooth"):
            BCEDiceLoss(**wrong)


# --- scores --------------------------------------------------------------------------------------------------------

class Painted(paddle.nn.Layer):
    """Says what it is told: logits from the images' grey levels, one finding after the other bit by bit."""

    def forward(self, x):
        return paddle.concat([x - 100.3, x - 200.7], axis=1) / 37


def painted(resize="squash"):
    """Two findings on images of different shapes, and a model that finds grey levels above 100 and above 200."""
    source = Drawn(count=6, findings=2)
    source.unknown = {(2, "f1")}
    source.masks[3, "f0"][:] = False
    source.masks[4, "f1"][:] = False
    source.pictures[4][:] = np.minimum(source.pictures[4], 150)
    source.pictures[5][:] = 0
    preprocess = Preprocess((1, 40, 40), resize=resize, mean=[0.0], std=[1 / 255])
    images = np.stack([preprocess.geometry(source.read(index)) for index in range(6)])
    data = LabelledData(source, preprocess, images, np.zeros(6, np.int64), ["all"] * 6)
    annotated = np.array([[source.annotated(i, name) for name in ("f0", "f1")] for i in range(6)])
    segmenter = Segmenter(Painted(), ("f0", "f1"), preprocess, Path("x"), {})
    return SegmentationData(data, np.zeros(0), annotated, ("f0", "f1")), segmenter


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
def test_scores_are_taken_at_the_published_size(resize):
    data, segmenter = painted(resize)
    scores = score(segmenter, data, np.array([5, 0, 1, 2, 3, 4]), 0.5, 4, World())
    assert scores.positions.tolist() == [5, 5, 0, 0, 1, 1, 2, 3, 3, 4, 4]  # image 2 is not annotated with f1
    source = data.images.source
    for position, finding, areas, values in zip(scores.positions, scores.findings, scores.areas, scores.values,
                                                strict=True):
        image, truth = source.read(position), source.masks[position, f"f{finding}"]
        logits = (data.images.images[position].astype(float) - (100.3, 200.7)[finding]) / 37
        probabilities = (1 + np.tanh(logits / 2)) / 2
        predicted = data.images.preprocess.undo_geometry(probabilities, image.shape) > 0.5
        assert areas.tolist() == [truth.sum(), predicted.sum()]
        if truth.any() or predicted.any():
            assert values[0] == pytest.approx(f1_score(truth.ravel(), predicted.ravel(), zero_division=0))
            assert values[1] == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel(), zero_division=0))
        else:
            assert values[0] == values[1] == 1
        assert values[2] == pytest.approx(hausdorff(truth, predicted), nan_ok=True)


def test_what_a_crop_cut_away_is_not_predicted():
    preprocess = Preprocess((1, 20, 20), resize="crop")
    found = masks_at_full_size(np.ones((20, 20)), preprocess, (20, 50), 0.5)
    assert found[:, 15:35].all() and not found[:, :15].any() and not found[:, 35:].any()


def test_empty_masks_count_as_the_text_says():
    # Two findings: nothing there and nothing found; missed; found where nothing is; half right.
    scores = Scores(np.array([0, 1, 2, 3, 3]), np.array([0, 0, 0, 0, 1]),
                    np.array([[0, 0], [9, 0], [0, 9], [9, 9], [9, 9]]),
                    np.array([[1, 1, np.nan, np.nan], [0, 0, np.nan, np.nan], [0, 0, np.nan, np.nan],
                              [0.5, 1 / 3, 7, np.nan], [1, 1, 0, np.nan]]))
    found = summarise(scores, ("a", "b", "c"), None, n=200)
    one = found["per_finding"]["a"]
    assert one["dice"] == 1.5 / 4 and one["dice_present"] == 0.25 and one["hd95"] == 7 and one["iou"] == (4 / 3) / 4
    assert (one["images"], one["truth_empty"], one["both_empty"], one["missed"], one["false"]) == (4, 2, 1, 1, 1)
    assert found["dice"] == pytest.approx((1.5 / 4 + 1) / 2) and "hd95_mm" not in found
    assert found["per_finding"]["c"]["dice"] is None and found["per_finding"]["c"]["dice_ci95"] is None
    assert found["dice_ci95"][0] <= found["dice"] <= found["dice_ci95"][1]
    assert found["bootstrap"] == {"resamples": 200, "unit": "sample", "seed": 0}


def test_intervals_draw_patients_with_all_their_images_and_findings():
    """Against a loop that draws patients and averages with numpy."""
    rng = np.random.default_rng(0)
    positions = np.repeat(np.arange(30), 2)
    findings = np.tile([0, 1], 30)
    values = rng.random((60, len(METRICS)))
    values[rng.random(60) < 0.2, 2] = np.nan
    values[:, 3] = np.nan
    patients = [f"p{position // 3}" for position in positions]
    found = summarise(Scores(positions, findings, np.ones((60, 2), int), values), ("a", "b"), patients, n=4000)
    assert found["bootstrap"]["unit"] == "patient"
    for metric, column in (("dice", 0), ("hd95", 2)):
        drawn = []
        for _ in range(1000):
            rows = np.concatenate([np.arange(6 * p, 6 * p + 6) for p in rng.integers(0, 10, 10)])
            drawn.append(np.mean([np.nanmean(values[rows[findings[rows] == k], column]) for k in (0, 1)]))
        assert found[f"{metric}_ci95"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)
        assert found[metric] == pytest.approx(np.mean([np.nanmean(values[findings == k, column]) for k in (0, 1)]))


def test_validation_is_the_mean_over_annotated_findings_of_every_image(tmp_path):
    """At the model's own size; against scikit-learn, one image after the other."""
    loaded = settled(tmp_path)
    data = load_segmentation(loaded, lambda _: None)
    validation = data.images.positions("val")
    data.annotated[validation[0], 1] = False
    task = SegmentationTask(loaded, data, World())
    task.model.eval()
    found = task.validate()
    values = {0: [], 1: []}
    for position in validation:
        with paddle.no_grad():
            logits = task.model(data.images.preprocess.normalize_tensor(
                paddle.to_tensor(data.images.images[position][None])))[0].numpy()
        for k in np.flatnonzero(data.annotated[position]):
            truth, predicted = (data.masks[position, ..., 0] >> k & 1).ravel(), logits[k].ravel() > 0
            either = truth.any() or predicted.any()
            values[k].append([measure(truth, predicted, zero_division=0) if either else 1
                              for measure in (f1_score, jaccard_score)])
    assert len(values[1]) == len(values[0]) - 1 == len(validation) - 1
    means = np.mean([np.mean(one, axis=0) for one in values.values()], axis=0)
    assert (found["dice"], found["iou"]) == pytest.approx(tuple(means)) and found["images"] == len(validation)
    assert task.better(found, found | {"dice": found["dice"] - 0.1}) and not task.better(found, found)


def test_millimetres_where_the_spacing_is_known():
    assert spacing_of({"pixel_spacing_mm": "0.14 0.2"}) == (0.14, 0.2)
    for extra in ({}, {"pixel_spacing_mm": "x y"}, {"pixel_spacing_mm": "0.1"}, {"pixel_spacing_mm": "0 0.1"},
                  {"pixel_spacing_mm": "nan 0.1"}):
        assert spacing_of(extra) is None
    data, segmenter = painted()
    data.images.source.records = [FindingsRecord(record.path, 0, extra={"pixel_spacing_mm": "0.5, 0.5"})
                                  for record in data.images.source.records]
    scores = score(segmenter, data, np.arange(6), 0.5, 8, World())
    known = ~np.isnan(scores.of("hd95"))
    assert np.allclose(scores.of("hd95_mm")[known], 0.5 * scores.of("hd95")[known]) and known.any()
    assert summarise(scores, data.findings, None, n=10)["hd95_mm"] == pytest.approx(
        summarise(scores, data.findings, None, n=10)["hd95"] / 2)


def test_boxes_serve_as_masks():
    record = FindingsRecord("a", 0, labels={"x": 1}, boxes=(FindingBox("x", 2, 3, 4, 2),))
    source = FindingsSource("boxes", "boxes", [ClassInfo("x", "x", "x")], [record])
    source.read = lambda index: np.zeros((10, 12), np.uint8)
    bits = MaskPictures(source, ["x"]).read(0)[..., 0]
    assert bits.sum() == 8 and bits[3:5, 2:6].all()


# --- recipes -------------------------------------------------------------------------------------------------------

def test_a_held_out_fold_does_not_decide_when_training_ends(tmp_path):
    with pytest.raises(UserError, match="^Global.early_stop：交叉验证（Global.folds）时应为 null"):
        load(write_recipe(tmp_path), ["Global.folds=3", "Global.keep=last", "Global.early_stop=2"])


@pytest.mark.parametrize(("override", "message"), [
    ("Global.findings=[]", "Global.findings：应为至少 1 项的列表"),
    ("Global.findings=[lung, lung]", "Global.findings：lung 写了两次"),
    ("Global.image_shape=null", "Global.image_shape：Model.checkpoint 不是训练好的模型时"),
    ("Global.folds=3", "Global.keep：交叉验证（Global.folds）时应为 last"),
    ("Global.fold=1", "Global.fold：1 不在"),
    ("Arch.encoder=null", "Arch.encoder：Model.checkpoint 不是训练好的模型时"),
    ("Arch.model=UNet", "Arch.model：是 PaddleSegModel 的参数"),
    ("Arch.name=PaddleSegModel", "Arch.encoder：是 UNet 的参数"),
    ("Arch={name: PaddleSegModel}", "Arch.model：请写"),
    ("DataLoader.Train.sampler.balance=true", "balance：带征象的图没有类别"),
    ("DataLoader.Train.transform_ops=[{name: RandomFlip}]", "没有叫 'RandomFlip' 的组件"),
    ("DataLoader.Source.name=PhantomFinding", "是不是 PhantomFindings？"),
    ("Metric.threshold=1.5", "Metric.threshold：应为小于 1 的数"),
])
def test_mistakes_in_a_recipe_are_one_clear_line(tmp_path, override, message):
    with pytest.raises(UserError) as error:
        load(write_recipe(tmp_path), [override])
    assert message in str(error.value)
