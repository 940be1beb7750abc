"""Eight devices that share a batch, or the parameters, compute what one does.

The devices are simulated, which must be asked for before jax starts: this file is run as a program
by its own test.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "what", ["compare", pytest.param("compare_groups", marks=pytest.mark.slow)]
)
def test_eight_devices_augment_normalise_and_descend_as_one_does(what):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
        " --xla_cpu_parallel_codegen_split_count=1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", __file__, what],
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


def compare_groups():
    import jax
    import numpy as np
    import test_models
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from imgclf import models

    key, rows = jax.random.key(0), 16
    mesh = Mesh(np.array(jax.devices()), ("data",))
    placements = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (), ("data",))]
    for name in ("cifar_resnet20", "cnn", "densenet121", "mobilenetv3_small_100", "resnet50"):
        options = test_models.NARROW[name]
        networks = {
            groups: models.create(name, 5, **(options | {"batch_groups": groups}))
            for groups in (1, 8)
        }
        images = jax.random.normal(key, (rows, *[networks[1].minimum_size] * 2, 3))
        variables = jax.device_get(networks[1].initialise(key, images))

        def logits(params, model_state, images, network):
            return network.apply(params, model_state, images, train=True)[0].logits

        def compiled(groups, logits=logits, networks=networks, inputs=(*variables, images)):
            forward = jax.jit(logits, static_argnums=3, in_shardings=placements)
            return forward.lower(*inputs, networks[groups]).compile()

        assert " all-reduce(" in compiled(1).as_text(), "nothing that groups could do without"
        program = compiled(8)
        crossed = [line for line in program.as_text().splitlines() if "replica_groups" in line]
        assert not crossed, f"{name} talks in the forward pass: {crossed}"
        got = program(*variables, jax.device_put(images, placements[-1]))
        alone = jax.jit(logits, static_argnums=3)
        for first in range(0, rows, rows // 8):
            rows_of_one = slice(first, first + rows // 8)
            expected = alone(*variables, images[rows_of_one], networks[1])
            np.testing.assert_allclose(got[rows_of_one], expected, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
