"""Eight devices that share a batch, or the parameters, compute what one does.

The devices are simulated, which must be asked for before jax starts: this file is run as a program
by its own test.
"""

import os
import subprocess
import sys
from pathlib import Path


def test_eight_devices_augment_and_descend_as_one_does():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


def compare():
    import jax
    import numpy as np
    import optax
    import test_augmentations
    import test_losses
    import test_optimizers
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from imgclf.augmentation import compose

    assert jax.device_count() == 8
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())

    key = jax.random.key(0)

    def agree(name, function, shared, rtol=1e-6):
        expected = jax.tree.map(np.asarray, jax.jit(function)(shared, key))
        spread = jax.jit(function, in_shardings=(rows, whole))
        program = spread.lower(shared, key).compile()
        got = program(*jax.device_put((shared, key), (rows, whole)))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6, err_msg=name),
            jax.tree.map(np.asarray, got),
            expected,
        )
        return program.as_text().splitlines()

    batch = test_augmentations.batch_of()
    one_of_each = {type(kind): kind for kind in test_augmentations.KINDS.values()}
    for kind in one_of_each.values():
        augment = compose((kind,), test_augmentations.CLASSES)
        program = agree(str(kind), lambda batch, key, f=augment: f(key, batch, 0.5), batch)
        gathered = [line for line in program if " all-gather(" in line and "u8[" in line]
        assert not gathered, f"{kind} gathers the images: {gathered}"

    inputs = test_losses.inputs()
    for name, loss in test_losses.KINDS.items():
        agree(name, lambda inputs, _, f=loss: test_losses.value(f, *inputs), inputs)

    params = jax.tree.map(lambda leaf: np.repeat(leaf, 8, 0), test_optimizers.parameters())
    for name, optimizer in test_optimizers.KINDS.items():

        def update(params, _, optimizer=optimizer):
            transformation = optimizer.build(test_optimizers.rate, params)
            updates, _ = transformation.update(params, transformation.init(params), params)
            return optax.apply_updates(params, updates)

        agree(name, update, params, rtol=1e-5)


if __name__ == "__main__":
    compare()
