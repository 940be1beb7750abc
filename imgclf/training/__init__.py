"""Training, and using what was trained.

`loop.train` goes from a recipe to a run folder; `step` is the pure function it repeats, `state`
what that changes; `program` compiles it, `mesh` places it, `feed` brings batches to it;
`checkpoints`, `meter`, `clock`, `writers`, `display`, `bad_records` and `finish` keep and tell what
came of it; `run` is the run folder, and `saved` evaluates and predicts with one.
"""
