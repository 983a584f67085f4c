"""Which pictures when, on which rank; the same whatever the workers; errors that reach the user."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.data import loader as loader_module
from paddle_cxr.data.dataset import Key, LabelledImages
from paddle_cxr.data.loader import make_loader
from paddle_cxr.data.sampler import EvalSampler, MicroBatchSampler, balanced_weights
from paddle_cxr.data.transforms import build_transforms
from paddle_cxr.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 12, 10), dtype=np.uint8)
LABELS = np.arange(50) % 3
OPS = [{"name": "RandomOrder", "transforms": [{"name": name} for name in (
    "RandomBrightness", "RandomContrast", "RandomSharpness", "RandomHorizontalFlip", "RandomRotation",
    "GaussianNoise")]}]


@st.composite
def samplers(draw):
    parts = draw(st.integers(1, 4))
    n = draw(st.integers(2 * parts, 60))
    return dict(n=n, batch_size=draw(st.integers(2 * parts, 30)), micro_batches=parts,
                shuffle=draw(st.booleans()), seed=draw(st.integers(0, 99)))


@settings(deadline=None, max_examples=60)
@given(arguments=samplers(), epoch=st.integers(0, 5))
def test_every_picture_once_an_epoch_in_nearly_equal_parts(arguments, epoch):
    sampler = MicroBatchSampler(**arguments)
    plan = sampler.plan(epoch)
    assert len(plan) == sampler.steps_per_epoch > 0
    for step in plan:
        sizes = [len(part) for part in step]
        assert len(step) == arguments["micro_batches"] and max(sizes) - min(sizes) <= 1 and min(sizes) >= 2
        assert sum(sizes) <= arguments["batch_size"]
    seen = np.concatenate([part for step in plan for part in step])
    assert len(set(seen.tolist())) == len(seen)
    assert arguments["n"] - len(seen) < 2 * arguments["micro_batches"]
    if not arguments["shuffle"]:
        assert seen.tolist() == list(range(len(seen)))


@settings(deadline=None, max_examples=60)
@given(arguments=samplers(), epoch=st.integers(0, 5), data=st.data())
def test_ranks_share_out_the_plan_and_resume_where_they_stopped(arguments, epoch, data):
    plan = MicroBatchSampler(**arguments).plan(epoch)
    world = data.draw(st.integers(1, arguments["micro_batches"]))
    first = data.draw(st.integers(0, len(plan)))
    for rank in range(world):
        sampler = MicroBatchSampler(**arguments, rank=rank, world_size=world)
        assert [[part.tolist() for part in step] for step in sampler.plan(epoch)] == \
               [[part.tolist() for part in step] for step in plan]
        sampler.set_epoch(epoch, first)
        yielded = [[key.position for key in keys] for keys in sampler]
        assert yielded == [part.tolist() for step in plan[first:] for part in step[rank::world]]
        assert len(sampler) == len(yielded)


def test_order_depends_on_seed_and_epoch_only():
    def order(epoch, **arguments):
        plan = MicroBatchSampler(40, **({"batch_size": 8, "seed": 1} | arguments)).plan(epoch)
        return np.concatenate([part for step in plan for part in step]).tolist()

    assert order(3) == order(3) == order(3, batch_size=10, micro_batches=4)
    assert order(3) != order(4) and order(3) != order(3, seed=2)


def test_drop_last_drops_any_smaller_batch():
    assert MicroBatchSampler(50, 16).steps_per_epoch == 4
    assert MicroBatchSampler(50, 16, drop_last=True).steps_per_epoch == 3
    assert MicroBatchSampler(50, 16, micro_batches=2).steps_per_epoch == 3  # 2 left over are too few for 2 parts


def test_balanced_drawing_meets_every_class_equally_and_tells_repeats_apart():
    labels = np.repeat([0, 1, 2], [400, 90, 10])
    sampler = MicroBatchSampler(500, 50, seed=3, weights=balanced_weights(labels))
    drawn = np.concatenate([part for epoch in range(20) for step in sampler.plan(epoch) for part in step])
    share = np.bincount(labels[drawn], minlength=3) / len(drawn)
    assert np.abs(share - 1 / 3).max() < 0.02
    keys = [key for keys in sampler for key in keys]
    assert [key.position for key in keys] == drawn[:500].tolist()
    assert len(set(keys)) == len(keys)  # the same picture drawn again is augmented anew
    assert max(key.repeat for key in keys) > 5
    transform = build_transforms(OPS, "ops")
    dataset = LabelledImages(IMAGES, LABELS, transform, seed=1)
    versions = {dataset[Key(0, 4, repeat)][0].tobytes() for repeat in range(8)}
    assert len(versions) > 4


@pytest.mark.parametrize("arguments, words", [
    (dict(n=3, batch_size=8, micro_batches=2), "3 张"), (dict(n=50, batch_size=3, micro_batches=2), "batch_size=3"),
    (dict(n=7, batch_size=8, drop_last=True), "drop_last"),
    (dict(n=50, batch_size=8, micro_batches=2, world_size=3), "3 个进程"),
])
def test_too_little_for_the_parts_is_one_clear_line(arguments, words):
    with pytest.raises(UserError, match=words):
        MicroBatchSampler(**arguments)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(0, 50), batch_size=st.integers(1, 20), world=st.integers(1, 4))
def test_evaluation_meets_every_picture_exactly_once_over_the_ranks(n, batch_size, world):
    ranks = [EvalSampler(n, batch_size, rank, world) for rank in range(world)]
    batches = [list(rank) for rank in ranks]
    assert sorted(key.position for rank in batches for keys in rank for key in keys) == list(range(n))
    assert [len(rank) for rank in ranks] == [len(rank) for rank in batches]
    assert all(len(keys) <= batch_size for rank in batches for keys in rank)


# --- batches --------------------------------------------------------------------------------------------------------

def epoch(num_workers=0, batch_size=8, micro_batches=1, world=1, start_step=0, number=2):
    """{position: augmented picture} of an epoch over all ranks, and the number of batches."""
    pictures, count = {}, 0
    for rank in range(world):
        sampler = MicroBatchSampler(50, batch_size, micro_batches, rank, world, seed=4)
        sampler.set_epoch(number, start_step)
        dataset = LabelledImages(IMAGES, LABELS, build_transforms(OPS, "ops"), seed=9)
        loader = make_loader(dataset, sampler, num_workers)
        for batch in loader:
            assert batch.images.dtype == paddle.uint8 and batch.labels.dtype == paddle.int64
            positions = batch.positions.numpy()
            assert (LABELS[positions] == batch.labels.numpy()).all()
            pictures |= dict(zip(positions.tolist(), batch.images.numpy(), strict=True))
            count += 1
        assert len(loader) * world == count or world > 1
    return pictures, count


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_augmentation_does_not_depend_on_workers_ranks_or_batch_size():
    reference, count = epoch()
    assert len(reference) == 50 and count == 7
    assert same(reference, epoch(num_workers=2)[0])
    assert same(reference, epoch(batch_size=25)[0])
    assert same(reference, epoch(batch_size=10, micro_batches=5, world=2)[0])
    resumed, _ = epoch(start_step=3)
    assert same(resumed, {key: reference[key] for key in resumed}) and len(resumed) == 50 - 3 * 8
    assert not same(reference, epoch(number=3)[0])


def test_without_a_transform_pictures_come_as_they_are():
    batches = list(make_loader(LabelledImages(IMAGES, LABELS), EvalSampler(50, 16), 0))
    assert np.array_equal(np.concatenate([batch.images.numpy() for batch in batches]), IMAGES)
    assert np.concatenate([batch.positions.numpy() for batch in batches]).tolist() == list(range(50))


def test_auto_leaves_a_cpu_to_the_model_and_feeds_a_gpu(monkeypatch):
    dataset, sampler = LabelledImages(IMAGES, LABELS), EvalSampler(50, 8)
    monkeypatch.setattr(loader_module, "available_cores", lambda: 64)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "cpu")
    assert make_loader(dataset, sampler).num_workers == 0
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    assert make_loader(dataset, sampler).num_workers == 8
    with pytest.raises(UserError, match="num_workers"):
        make_loader(dataset, sampler, -1)


class Breaking:
    """Pictures of which number 17 cannot be read."""

    shape = IMAGES.shape

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 50

    def __getitem__(self, index):
        if index == 17:
            raise self.error
        return IMAGES[index]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_file_reaches_the_user_as_one_line(num_workers):
    loader = make_loader(LabelledImages(Breaking(UserError("图像 a/17.jpg：文件不完整")), LABELS), EvalSampler(50, 4),
                         num_workers)
    with pytest.raises(UserError) as error:
        list(loader)
    assert str(error.value) == "图像 a/17.jpg：文件不完整"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bug_keeps_its_traceback(num_workers):
    loader = make_loader(LabelledImages(Breaking(ZeroDivisionError("a bug")), LABELS), EvalSampler(50, 4), num_workers)
    with pytest.raises((ZeroDivisionError, RuntimeError), match="a bug"):
        list(loader)


def test_little_shared_memory_is_not_used(monkeypatch):
    usage = loader_module.shutil.disk_usage("/")
    monkeypatch.setattr(loader_module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert same(epoch()[0], epoch(num_workers=2)[0])
