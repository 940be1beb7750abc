from imgclf.errors import nearest, unknown


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert nearest("resnt50", ["resnet50", "cnn"]) == "resnet50"
    assert "did you mean 'resnet50'" in str(unknown("network", "resnt50", ["resnet50", "cnn"]))


def test_a_name_far_from_all_is_answered_with_the_list() -> None:
    assert nearest("xyz", ["resnet50", "cnn"]) is None
    assert str(unknown("network", "xyz", ["b", "a"])) == "Unknown network 'xyz'; there are: a, b"
