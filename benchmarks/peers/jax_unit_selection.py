"""Section 4.1's iteration in JAX, all of it under jit with donated arguments; one thread."""

import argparse
import json
import os
import statistics
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp

LAMBDA, BATCH, WIDTHS = 2, 32, (784, 784, 784, 784, 10)
D, EPSILON, LR, MOMENTUM, DECAY = 3 * 784, 2.0**-7, 0.01, 0.9, 1e-4


def losses_of(weights, x, t, structures):
    """Return the mean of the structures' losses, and the losses."""
    masks = structures.reshape(LAMBDA, 1, 3, 784)
    # The first layer is the same for all structures, as in ours.
    h = jax.nn.relu(x @ weights[0][0] + weights[0][1])[None] * masks[:, :, 0]
    for k in (1, 2):
        h = jax.nn.relu(h @ weights[k][0] + weights[k][1]) * masks[:, :, k]
    log_p = jax.nn.log_softmax(h @ weights[3][0] + weights[3][1])
    targets = jnp.broadcast_to(t[None, :, None], (LAMBDA, BATCH, 1))
    losses = -jnp.take_along_axis(log_p, targets, 2).mean((1, 2))
    return losses.mean(), losses


def iterate(weights, velocity, theta, key, x, t):
    """Do one iteration."""
    of_batch, of_structures, key = jax.random.split(key, 3)
    index = jax.random.randint(of_batch, (BATCH,), 0, len(x))
    structures = (jax.random.uniform(of_structures, (LAMBDA, D)) < theta).astype(jnp.float32)
    gradient, losses = jax.grad(losses_of, has_aux=True)(weights, x[index], t[index], structures)
    utilities = jnp.where(losses == losses.min(), 1.0, -1.0)
    step = (utilities[:, None] * (structures - theta)).mean(0) - EPSILON * theta * (1 - theta)
    theta = jnp.clip(theta + step / D, 1 / D, 1 - 1 / D)
    gradient = jax.tree.map(lambda g, w: g + DECAY * w, gradient, weights)
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v - LR * g, velocity, gradient)
    weights = jax.tree.map(lambda w, v, g: w + MOMENTUM * v - LR * g, weights, velocity, gradient)
    return weights, velocity, theta, key


def main():
    """Time iterations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=200)
    iterations = parser.parse_args().iterations
    keys = jax.random.split(jax.random.PRNGKey(0), 6)
    weights = [
        (jax.random.normal(key, (a, b)) * (2 / a) ** 0.5, jnp.zeros(b))
        for key, a, b in zip(keys, WIDTHS[:-1], WIDTHS[1:])
    ]
    x = jax.random.uniform(keys[4], (60000, 784))
    t = jax.random.randint(keys[5], (60000,), 0, 10)
    state = weights, jax.tree.map(jnp.zeros_like, weights), jnp.full(D, 0.5), jax.random.PRNGKey(1)
    compiled = jax.jit(iterate, donate_argnums=(0, 1, 2))
    times = []
    for i in range(20 + iterations):
        begun = time.perf_counter()
        state = jax.block_until_ready(compiled(*state, x, t))
        if i >= 20:
            times.append(time.perf_counter() - begun)
    print(json.dumps({"case": f"JAX {jax.__version__}", "ms": 1e3 * statistics.median(times)}))


main()
