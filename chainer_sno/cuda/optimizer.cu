// The step of an optimizer with momentum and WeightDecay.
//
// Defined when it is compiled: VELOCITIES, whether the optimizer keeps velocities, without which the
// arrays of velocities may be null; and NESTEROV, which of two steps it takes.

// One step on one parameter: v' = mu v - lr g and W' = W + a v' - b lr g, where a and b are mu^2 and
// 1 + mu in Chainer's NesterovAG (readings R6 and R14), and 1 and 0 in its MomentumSGD and SGD.  What
// v is before does not count where velocities are not kept.
__device__ void optimizer_step(real &W, real &v, real gradient, real lr, real momentum, real decay)
{
    const real g = gradient + decay * W;
    v = (VELOCITIES ? momentum * v : 0) - lr * g;
    W += NESTEROV ? momentum * momentum * v - (1 + momentum) * lr * g : v;
}

// The step of all parameters of a network, which lie in one array.
extern "C" __global__ void optimize(
    real *W, real *v, const real *gradient, long long size, const real *lr, real momentum,
    real decay)
{
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    real unkept;
    if (i < size)
        optimizer_step(W[i], VELOCITIES ? v[i] : unkept, gradient[i], *lr, momentum, decay);
}
