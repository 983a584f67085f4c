"""What a loss, a view and an average are, against independent computations."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_cxr.engine.average import BatchStatistics, WeightAverage
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import load
from paddle_cxr.tasks.classification import check_components, hidden, probabilities_of
from paddle_cxr.tasks.losses import CrossEntropy
from paddle_cxr.tasks.views import looks


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    logits = paddle.to_tensor(rng.normal(size=(7, 3)).astype("float32"))
    labels = paddle.to_tensor(rng.integers(0, 3, 7))
    return logits, labels


def test_plain_cross_entropy_is_paddles(batch):
    logits, labels = batch
    ours = CrossEntropy((1, 1, 1))(logits, F.one_hot(labels, 3))
    assert float(ours) == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6)


def test_label_smoothing_is_paddles(batch):
    logits, labels = batch
    ours = CrossEntropy((1, 1, 1), label_smoothing=0.1)(logits, F.one_hot(labels, 3))
    smoothed = F.label_smooth(F.one_hot(labels, 3), epsilon=0.1)
    assert float(ours) == pytest.approx(float(F.cross_entropy(logits, smoothed, soft_label=True)), abs=1e-6)


def test_class_weights_weigh_samples_and_divide_by_their_number(batch):
    logits, labels = batch
    ours = CrossEntropy((1, 1, 1), class_weights=[1.0, 2.0, 3.0])(logits, F.one_hot(labels, 3))
    each = F.cross_entropy(logits, labels, reduction="none").numpy().ravel()
    weights = np.array([1.0, 2.0, 3.0])[labels.numpy()]
    assert float(ours) == pytest.approx((each * weights).sum() / 7, abs=1e-6)


def test_balanced_weights_make_every_class_count_alike():
    loss = CrossEntropy((10, 30, 60), class_weights="balanced")
    assert (loss.weights.numpy() * [10, 30, 60]).tolist() == pytest.approx([100 / 3] * 3)


def test_a_batchs_loss_is_the_mean_of_its_parts(batch):
    logits, labels = batch
    loss, targets = CrossEntropy((2, 3, 2), class_weights="balanced"), F.one_hot(labels, 3)
    parts = sum(float(loss(logits[a:b], targets[a:b])) * (b - a) / 7 for a, b in ((0, 3), (3, 7)))
    assert float(loss(logits, targets)) == pytest.approx(parts, abs=1e-6)


def test_views():
    x = paddle.arange(64, dtype="float32").reshape([1, 1, 8, 8])
    assert len(looks(x, "one")) == 1
    plain, mirrored = looks(x, "flip")
    assert np.array_equal(mirrored.numpy(), plain.numpy()[..., ::-1])
    crops = looks(x, "crops")
    assert len(crops) == 12 and all(view.shape == x.shape for view in crops)

    class Corner(paddle.nn.Layer):
        """Logits that tell what the upper left pixel is."""

        def forward(self, image):
            return paddle.concat([image[:, :, 0, 0] / 64, paddle.zeros([len(image), 1])], axis=1)

    one = [F.softmax(Corner()(view), axis=1).numpy() for view in crops]
    np.testing.assert_allclose(probabilities_of(Corner(), x, "crops"), np.mean(one, axis=0), atol=1e-6)


def test_hiding_the_centre_and_the_border_shares_the_image_out():
    images = paddle.full([2, 16, 24], 9, "uint8")
    centre, border = hidden(images, "centre").numpy(), hidden(images, "border").numpy()
    assert np.array_equal(centre + border, images.numpy())
    assert not centre[:, 2:14, 3:21].any() and border[:, 2:14, 3:21].all()
    assert hidden(paddle.full([1, 16, 16, 3], 9, "uint8"), "border").shape == [1, 16, 16, 3]
    assert hidden(images, "nothing") is images


def test_weight_average_is_the_formula_and_leaves_the_model_alone():
    model = paddle.nn.Linear(2, 1)
    average = WeightAverage(model, 0.9)
    expected = model.weight.numpy().copy()
    for step in range(1, 6):
        model.weight.set_value(paddle.full([2, 1], float(step)))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    np.testing.assert_allclose(average.shadow["weight"].numpy(), expected, rtol=1e-6)
    with average:
        np.testing.assert_allclose(model.weight.numpy(), expected, rtol=1e-6)
    assert model.weight.numpy().tolist() == [[5.0], [5.0]]


def test_batch_statistics_end_as_the_weighted_mean_of_the_micro_batches():
    layer = paddle.nn.BatchNorm2D(3)
    statistics = BatchStatistics(layer_in_a_model(layer))
    batches = [paddle.randn([n, 3, 4, 4]) + n for n in (2, 6)]
    after = []
    for batch in batches:
        fresh = paddle.nn.BatchNorm2D(3)
        fresh(batch)
        after.append(fresh._mean.numpy())
    statistics.begin_step()
    for batch, share in zip(batches, (0.25, 0.75), strict=True):
        layer(batch)
        statistics.end_micro_batch(share)
    statistics.end_step(statistics.weighted())
    np.testing.assert_allclose(layer._mean.numpy(), 0.25 * after[0] + 0.75 * after[1], atol=1e-6)


def layer_in_a_model(layer):
    return paddle.nn.Sequential(layer)


@pytest.mark.parametrize(("override", "said"), [
    ("Arch.name=[a]", r"Arch.name：没有叫 \['a'\]"),
    ("Arch.pretrained=3", "Arch.pretrained：应为"),
    ("Arch.pretraned=true", r"是不是 pretrained？（可用参数：.*、pretrained）"),
    ("Arch={name: Ensemble, member: {name: ResNet19}}", "Arch.member.name：没有叫 'ResNet19' 的组件，是不是 ResNet1"),
    ("Arch={name: Ensemble, member: {name: ResNet18}, members: 1}", "Arch.members：集成.*至少 2 个"),
    ("Global.freeze=[layer9]", "Global.freeze.0：模型里没有以 'layer9' 开头的参数"),
    ("Optimizer.lrr=1", r"是不是 lr？（可用参数：.*、lr）"),
    ("Optimizer.beta1=2", r"Optimizer.beta1：应为\[0, 1\) 内的数"),
    ("Optimizer.epsilon=-1", "Optimizer.epsilon：应为不小于 0"),
    ("Optimizer.weight_decay=.nan", "Optimizer.weight_decay：应为不小于 0"),
    ("Optimizer.lr.learning_rate=-1", "Optimizer.lr.learning_rate：应为不小于 0"),
    ("Optimizer.lr.warmup_epochs=.inf", "Optimizer.lr.warmup_epochs：应为不小于 0"),
    ("Loss={name: CrossEntropy, label_smoothing: 2}", "Loss.label_smoothing"),
    ("Loss={name: CrossEntropy, class_weights: [1, -1, 1]}", "Loss.class_weights：权重应不小于 0"),
    ("DataLoader.Train.transform_ops.0.prob=2", "prob"),
])
def test_mistakes_are_found_before_any_image_is_read(tiny_recipe, override, said):
    with pytest.raises(UserError, match=said):
        check_components(load(tiny_recipe, [override]).recipe)
