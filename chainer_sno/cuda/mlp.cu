// Fully connected networks: MaskedMLP with its units under selection, and MLP with or without
// Dropout.
//
// A row is an example seen by a structure; row r is example r % n of structure r / n.  The matrices
// are small: what a kernel takes is the time to reach memory, so every warp asks for much at once
// and few of them wait for each other.
//
// WARPS, ROWS and COLUMNS are those of mlp.py, which launches the kernels: warps of a block, and
// the tile of a product that a block computes.
#define THREADS (WARPS * WARP)

// Four neighbours in memory, read and written at once, or as doubles two and two.
struct alignas(16) Four {
    real values[4];
};

__device__ bool aligned(const real *data)
{
    return (wide)data % alignof(Four) == 0;
}

// A matrix as an operand of a product: elements (i, k), of which k is summed over.
//   ALONG_K: neighbours in k are neighbours in memory
template <bool ALONG_K> struct Operand {
    const real *data;
    int stride, count, depth;  // of a row in memory; of i; of k

    // Everything that is read lies in groups of four.
    __device__ bool whole() const
    {
        return aligned(data) && stride % 4 == 0 && depth % 4 == 0 && (ALONG_K || count % 4 == 0);
    }

    // The elements (i .. i + 3, k .. k + 3).  Outside there are zeros; but where everything is
    // WHOLE, so that k is inside, those outside are some others, whose products nobody takes.
    template <bool WHOLE> __device__ void read(real (&to)[4][4], int i, int k) const
    {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            int row = (ALONG_K ? i : k) + r, column = ALONG_K ? k : i;
            const int rows = ALONG_K ? count : depth, columns = ALONG_K ? depth : count;
            Four line;
            if (WHOLE) {
                row = row < rows ? row : rows - 1;
                column = column < columns ? column : columns - 4;
                line = *(const Four *)(data + (long long)row * stride + column);
            } else {
#pragma unroll
                for (int q = 0; q < 4; ++q)
                    line.values[q] = row < rows && column + q < columns
                                         ? data[(long long)row * stride + column + q]
                                         : 0;
            }
#pragma unroll
            for (int q = 0; q < 4; ++q)
                to[ALONG_K ? r : q][ALONG_K ? q : r] = line.values[q];
        }
    }
};

// sum[p][q] += a(i + p, k) * b(j + q, k) over the k of some groups of four: the first, and then
// every step-th.
template <bool WHOLE, class A, class B>
__device__ void accumulate(
    real (&sum)[4][4], const A &a, const B &b, int i, int j, int first, int step)
{
#pragma unroll 2
    for (int k = 4 * first; k < a.depth; k += 4 * step) {
        real left[4][4], right[4][4];
        a.template read<WHOLE>(left, i, k);
        b.template read<WHOLE>(right, j, k);
#pragma unroll
        for (int l = 0; l < 4; ++l)
#pragma unroll
            for (int p = 0; p < 4; ++p)
#pragma unroll
                for (int q = 0; q < 4; ++q)
                    sum[p][q] += left[p][l] * right[q][l];
    }
}

// A product by blocks of WARPS warps, a ROWS x COLUMNS tile each: a warp takes a share of k.
//   c(i, j, value): takes an element
template <class A, class B, class C>
__device__ void product(const A &a, const B &b, const C &c)
{
    const int pad = WARP + 1;
    __shared__ real sums[WARPS][16][pad];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int across = COLUMNS / 4, i = blockIdx.y * ROWS, j = blockIdx.x * COLUMNS;
    const int own_i = i + lane / across * 4, own_j = j + lane % across * 4;
    real sum[4][4] = {};
    if (a.whole() && b.whole())
        accumulate<true>(sum, a, b, own_i, own_j, warp, WARPS);
    else
        accumulate<false>(sum, a, b, own_i, own_j, warp, WARPS);
#pragma unroll
    for (int p = 0; p < 4; ++p)
#pragma unroll
        for (int q = 0; q < 4; ++q)
            sums[warp][p * 4 + q][lane] = sum[p][q];
    __syncthreads();
    for (int e = threadIdx.x; e < ROWS * COLUMNS; e += THREADS) {
        const int row = e / COLUMNS, column = e % COLUMNS;
        real total = 0;
        for (int w = 0; w < WARPS; ++w)
            total += sums[w][row % 4 * 4 + column % 4][row / 4 * across + column / 4];
        if (i + row < a.count && j + column < b.count)
            c(i + row, j + column, total);
    }
}

// Factors of units, (rows / repeat, stride), or null for ones.
struct Factors {
    const real *factors;
    int repeat, stride;
    __device__ real operator()(int row, int unit) const
    {
        return factors ? factors[(long long)(row / repeat) * stride + unit] : 1;
    }
};

// relu(z + b), times the factors: for each structure where z is the same for all of them.
struct StoreActivation {
    const real *b;
    Factors factors;
    real *h;
    int rows, width, copies;
    __device__ void operator()(int i, int j, real value) const
    {
        const real activation = positive(value + b[j]);
        for (int row = i; row < copies * rows; row += rows)
            h[(long long)row * width + j] = activation * factors(row, j);
    }
};

// The gradient at pre-activations: what came through the weights, times relu' and the factor.  An
// activation is zero where either is.
struct StoreGradient {
    const real *h;
    Factors factors;
    real *dz;
    int width;
    __device__ void operator()(int i, int j, real value) const
    {
        const long long at = (long long)i * width + j;
        dz[at] = h[at] <= 0 ? 0 : value * factors(i, j);
    }
};

// h = relu(below W^T + b) * factors, out units of copies * rows rows.
extern "C" __global__ void __launch_bounds__(THREADS) forward(
    int rows, int copies, int out, int in, const real *below, const real *W, const real *b,
    const real *factors, int repeat, int stride, real *h)
{
    product(
        Operand<true>{below, in, rows, in}, Operand<true>{W, in, out, in},
        StoreActivation{b, {factors, repeat, stride}, h, rows, out, copies});
}

// The last layer, the softmax cross entropy and its gradient: a block a row, which then is row
// r % n of t.
//   dz[row, c] = (p - [c = t]) * scale
extern "C" __global__ void classify(
    int n, int period, int classes, int in, const real *below, const real *W, const real *b,
    const int *t, real scale, double *row_losses, real *dz)
{
    __shared__ real logits[MAX_CLASSES];
    __shared__ int examples;
    const int row = blockIdx.x, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    below += (long long)(row % period) * in;
    for (int c = threadIdx.x / WARP; c < classes; c += warps) {
        real sum = 0;
#pragma unroll 8
        for (int k = lane; k < in; k += WARP)
            sum += below[k] * W[(long long)c * in + k];
        sum = warp_sum(sum);
        if (lane == 0)
            logits[c] = sum + b[c];
    }
    if (threadIdx.x < WARP) {
        const int count = labelled(t, n);
        if (threadIdx.x == 0)
            examples = count;
    }
    __syncthreads();
    scale = scale_of(scale, n, examples);
    softmax_cross_entropy(
        logits, classes, t[row % n], scale, row_losses + row, dz + (long long)row * classes);
}

// The gradient at the pre-activations below a layer.
extern "C" __global__ void __launch_bounds__(THREADS) backward(
    int rows, int out, int in, const real *dz, const real *W, const real *h, const real *factors,
    int repeat, int stride, real *dbelow)
{
    product(
        Operand<true>{dz, out, rows, out}, Operand<false>{W, in, in, out},
        StoreGradient{h, {factors, repeat, stride}, dbelow, in});
}

// The gradient of a layer's weights and biases, and at once the step of optimizer.cu.
//   below: (period, in), the inputs of the layer, the same for row r and row r + period
// A warp has COLUMNS x ROWS weights; the last column of blocks has the biases.
extern "C" __global__ void __launch_bounds__(THREADS) update(
    int rows, int period, int out, int in, const real *dz, const real *below, const real *lr,
    real momentum, real decay, real *W, real *v, real *b, real *bv)
{
    const real rate = *lr;
    real unkept;
    if (blockIdx.x == gridDim.x - 1) {
        const int i = blockIdx.y * WARPS * COLUMNS + threadIdx.x;
        if (threadIdx.x >= WARPS * COLUMNS || i >= out)
            return;
        real sum = 0;
#pragma unroll 8
        for (int row = 0; row < rows; ++row)
            sum += dz[(long long)row * out + i];
        optimizer_step(b[i], VELOCITIES ? bv[i] : unkept, sum, rate, momentum, decay);
        return;
    }
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, across = ROWS / 4;
    const int i = (blockIdx.y * WARPS + warp) * COLUMNS + lane / across * 4;
    const int j = blockIdx.x * ROWS + lane % across * 4;
    if (i >= out || j >= in)
        return;
    real sum[4][4] = {};
    bool whole = aligned(W) && aligned(v);
    for (int first = 0; first < rows; first += period) {
        const Operand<false> a = {dz + (long long)first * out, out, out, period};
        const Operand<false> h = {below, in, in, period};
        whole = whole && a.whole() && h.whole();
        if (whole)
            accumulate<true>(sum, a, h, i, j, 0, 1);
        else
            accumulate<false>(sum, a, h, i, j, 0, 1);
    }
#pragma unroll
    for (int p = 0; p < 4; ++p) {
        if (i + p >= out)
            break;
        const long long at = (long long)(i + p) * in + j;
        if (whole) {
            Four weights = *(Four *)(W + at), velocities;
            if (VELOCITIES)
                velocities = *(Four *)(v + at);
#pragma unroll
            for (int q = 0; q < 4; ++q)
                optimizer_step(
                    weights.values[q], velocities.values[q], sum[p][q], rate, momentum, decay);
            *(Four *)(W + at) = weights;
            if (VELOCITIES)
                *(Four *)(v + at) = velocities;
        } else {
#pragma unroll
            for (int q = 0; q < 4; ++q)
                if (j + q < in)
                    optimizer_step(
                        W[at + q], VELOCITIES ? v[at + q] : unkept, sum[p][q], rate, momentum,
                        decay);
        }
    }
}
