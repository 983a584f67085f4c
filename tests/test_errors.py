"""The one exception a user reads."""

from paddle_cxr.errors import UserError, did_you_mean


def test_a_message_is_one_line_whatever_it_quotes():
    assert str(UserError("a\nb\x1b[31mc\t中文")) == "a b [31mc 中文"


def test_the_nearest_name_is_offered_and_a_far_one_is_not():
    assert did_you_mean("epoch", ["epochs", "seed"]) == "，是不是 epochs？"
    assert did_you_mean("resnet50", ["ResNet50"]) == "，是不是 ResNet50？"
    assert did_you_mean("zzz", ["epochs"]) == ""
