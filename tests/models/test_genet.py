def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference("gernet_s")
