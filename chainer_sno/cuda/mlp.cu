// Fully connected networks: MaskedMLP with its units under selection, and MLP with or without
// Dropout.
//
// A row is an example seen by a structure; row r is example r % n of structure r / n.  Only
// pre-activations z are kept; whoever needs activations computes relu(z) * factor while it reads.

struct Activations {
    static const bool along_k = true;
    const real *z;      // (period, width): what does not depend on the structure has n rows only
    const real *mask;   // (rows / repeat, stride): factors, or null for ones
    int period, width, repeat, stride;
    bool relu;
    __device__ real operator()(int row, int unit) const
    {
        const real value = z[(long long)(row % period) * width + unit];
        if (!relu)
            return value;
        return positive(value) * (mask ? mask[(long long)(row / repeat) * stride + unit] : 1);
    }
};

// Weights (out, in) as an operand of h W^T, and of dz W.
struct Transposed {
    static const bool along_k = true;
    const real *W;
    int in;
    __device__ real operator()(int k, int j) const { return W[(long long)j * in + k]; }
};

struct Weights {
    static const bool along_k = false;
    const real *W;
    int in;
    __device__ real operator()(int k, int j) const { return W[(long long)k * in + j]; }
};

struct Gradients {
    static const bool along_k = true;
    const real *dz;
    int width;
    __device__ real operator()(int row, int unit) const
    {
        return dz[(long long)row * width + unit];
    }
};

struct TransposedGradients {
    static const bool along_k = false;
    const real *dz;
    int width;
    __device__ real operator()(int unit, int row) const
    {
        return dz[(long long)row * width + unit];
    }
};

struct StorePreActivation {
    const real *b;
    real *z;
    int width;
    __device__ void operator()(int i, int j, real value) const
    {
        z[(long long)i * width + j] = value + b[j];
    }
};

// The gradient at pre-activations: what came through the weights, times relu' and the factor.
struct StoreGradient {
    const Activations &h;
    real *dz;
    __device__ void operator()(int i, int j, real value) const
    {
        const bool on = h.z[(long long)(i % h.period) * h.width + j] > 0;
        const real factor = h.mask ? h.mask[(long long)(i / h.repeat) * h.stride + j] : 1;
        dz[(long long)i * h.width + j] = on ? value * factor : 0;
    }
};

// Activations with a one behind them, whose weights are the biases.
struct WithOne {
    static const bool along_k = false;
    const Activations &h;
    __device__ real operator()(int row, int unit) const
    {
        return unit < h.width ? h(row, unit) : 1;
    }
};

struct Step {
    real *W, *v, *b, *bv;
    int in;
    real lr, momentum, decay;
    __device__ void operator()(int i, int j, real gradient) const
    {
        const long long at = (long long)i * in + j;
        if (j < in)
            nesterov_step(W[at], v[at], gradient, lr, momentum, decay);
        else
            nesterov_step(b[i], bv[i], gradient, lr, momentum, decay);
    }
};

// z = h W^T + b, rows x out.
extern "C" __global__ void forward(
    int rows, int out, int in, const real *below, int period, const real *mask, int repeat,
    int stride, int relu, const real *W, const real *b, real *z)
{
    const Activations h = {below, mask, period, in, repeat, stride, relu != 0};
    multiply<16, 32, 32, 2, 2>(rows, out, in, h, Transposed{W, in}, StorePreActivation{b, z, out});
}

// The last layer, the softmax cross entropy and its gradient: a block a row.
//   dz[row, c] = (p - [c = t]) * scale
extern "C" __global__ void classify(
    int n, int classes, int in, const real *below, int period, const real *mask, int repeat,
    int stride, int relu, const real *W, const real *b, const int *t, real scale,
    double *row_losses, real *dz)
{
    __shared__ real logits[MAX_CLASSES];
    const int row = blockIdx.x, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    const Activations h = {below, mask, period, in, repeat, stride, relu != 0};
    for (int c = threadIdx.x / WARP; c < classes; c += warps) {
        real sum = 0;
        for (int k = lane; k < in; k += WARP)
            sum += h(row, k) * W[(long long)c * in + k];
        sum = warp_sum(sum);
        if (lane == 0)
            logits[c] = sum + b[c];
    }
    __syncthreads();
    softmax_cross_entropy(
        logits, classes, t[row % n], scale, row_losses + row, dz + (long long)row * classes);
}

// The gradient at the pre-activations below a layer.
extern "C" __global__ void backward(
    int rows, int out, int in, const real *dz, const real *W, const real *below, int period,
    const real *mask, int repeat, int stride, real *dbelow)
{
    const Activations h = {below, mask, period, in, repeat, stride, true};
    multiply<16, 32, 32, 2, 2>(
        rows, in, out, Gradients{dz, out}, Weights{W, in}, StoreGradient{h, dbelow});
}

// The gradient of a layer's weights and biases, and at once the step of the optimizer.
extern "C" __global__ void update(
    int rows, int out, int in, const real *dz, const real *below, int period, const real *mask,
    int repeat, int stride, int relu, const real *lr, real momentum, real decay, real *W, real *v,
    real *b, real *bv)
{
    const Activations h = {below, mask, period, in, repeat, stride, relu != 0};
    multiply<64, 64, 16, 4, 4>(
        out, in + 1, rows, TransposedGradients{dz, out}, WithOne{h},
        Step{W, v, b, bv, in, *lr, momentum, decay});
}
