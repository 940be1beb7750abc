"""Training, and using what was trained.

`loop.train` goes from a recipe to a run folder, by way of a `session`; `step` is the pure function
that is repeated, `state` what it changes; `program` compiles it, `backend` is the machine under it,
`mesh` places it, `feed` brings batches to it, `evaluate` predicts with it. `signals` stop it;
processes `join` each other beside a `coordinator` and agree as a `cluster`. `checkpoints` (whole by
their `manifest`), `meter`, `clock`, `writers`, `display`, `bad_records` and `finish` keep and tell
what came of it; `run` is the run folder, `saved` evaluates and predicts with one, and `account`
tells what a recipe takes.
"""
