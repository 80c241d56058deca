// The DenseNet from the images to the losses; what the kernels share is in dense.cuh.

// Leave the layers that the exit does not depend on without inputs.  Blocks (samples).
extern "C" __global__ void drop_dead_layers(const Geometry *geometry, real *structures)
{
    const Geometry g = *geometry;
    if (threadIdx.x)
        return;
    real *bits = structures + (long long)blockIdx.x * g.bits;
    // Backwards: the dead ones above a layer have let go of it when its turn comes.
    for (int i = g.consumers - 2; i >= 0; --i) {
        bool live = false;
        for (int above = i + 1; above < g.consumers; ++above)
            live |= bits[first_bit_of(g, above) + 1 + i] != 0;
        if (!live)
            for (int source = 0; source <= i; ++source)
                bits[first_bit_of(g, i) + source] = 0;
    }
}

// Which channels each consumer reads, and which consumers the exit depends on.
//   rows: (samples, consumers, channels); counts, live: (samples, consumers)
// Blocks (consumers + 1, samples).
extern "C" __global__ void connect(
    const Geometry *geometry, const real *structures, int *rows, int *counts, int *live)
{
    const Geometry g = *geometry;
    const int consumer = blockIdx.x, s = blockIdx.y;
    const real *bits = structures + (long long)s * g.bits;
    if (consumer == g.consumers) {
        if (threadIdx.x)
            return;
        int *own = live + s * g.consumers;
        for (int i = 0; i < g.consumers; ++i)
            own[i] = i == g.consumers - 1;
        for (int i = g.consumers - 1; i >= 0; --i)
            for (int source = 0; source < i; ++source)
                own[source] |= own[i] && bits[first_bit_of(g, i) + 1 + source] != 0;
        return;
    }
    bits += first_bit_of(g, consumer);
    const int below = g.inputs + consumer * GROWTH;
    int *own = rows + ((long long)s * g.consumers + consumer) * g.channels;
    for (int channel = threadIdx.x; channel < below; channel += blockDim.x) {
        const int place = place_of(g, bits, channel);
        if (place >= 0)
            own[place] = channel;
    }
    if (threadIdx.x == 0) {
        int count = bits[0] != 0 ? g.inputs : 0;
        for (int i = 1; i <= consumer; ++i)
            count += bits[i] != 0 ? GROWTH : 0;
        counts[s * g.consumers + consumer] = count;
    }
}

// A 3x3 convolution of some of the active channels.
//   W: (OUT, below, 3, 3); parts: (splits, samples, OUT, P)
// Blocks (tiles, splits, samples), STRIPS threads.
template <int OUT, bool NORMALISED>
__device__ void convolve(
    const Geometry &g, const Inputs &h, const int *rows, int count, int below, const real *W,
    real *parts)
{
    __shared__ real a[READ][TILE], weights[READ][9][OUT];
    const Tile tile(g, blockIdx.x);
    const int split = blockIdx.y, splits = gridDim.y, s = blockIdx.z, samples = gridDim.z;
    const int share = (count + splits * READ - 1) / (splits * READ) * READ;
    const int end = (split + 1) * share < count ? (split + 1) * share : count;
    const int row = threadIdx.x / tile.strips, x = threadIdx.x % tile.strips * STRIP;
    const bool present = row < tile.present();
    real sum[OUT][STRIP];
    for (int o = 0; o < OUT; ++o)
        for (int p = 0; p < STRIP; ++p)
            sum[o][p] = 0;
    for (int k = split * share; k < end; k += READ) {
        const int channels = end - k < READ ? end - k : READ;
        tile.load<STRIPS, READ>(
            a, channels, Activated<READ, NORMALISED>(h, rows + k, channels));
        fetch<(READ * 9 * OUT + STRIPS - 1) / STRIPS>(
            threadIdx.x, channels * 9 * OUT, STRIPS,
            [&](int e) {
                return W[((long long)(e % OUT) * below + rows[k + e / (9 * OUT)]) * 9 +
                         e / OUT % 9];
            },
            [&](int e, real w) { weights[e / (9 * OUT)][e / OUT % 9][e % OUT] = w; });
        __syncthreads();
        for (int c = 0; present && c < READ && k + c < end; ++c)
            for (int dy = 0; dy < 3; ++dy) {
                const real *line = a[c] + tile.begin(row, dy - 1) + x;
                real value[STRIP + 2];
                for (int p = 0; p < STRIP + 2; ++p)
                    value[p] = x + p < tile.stride ? line[p] : 0;
#pragma unroll
                for (int dx = 0; dx < 3; ++dx)
#pragma unroll
                    for (int o = 0; o < OUT; ++o) {
                        const real w = weights[c][dy * 3 + dx][o];
#pragma unroll
                        for (int p = 0; p < STRIP; ++p)
                            sum[o][p] += w * value[p + dx];
                    }
            }
        __syncthreads();
    }
    if (!present)
        return;
    const long long columns = columns_of(g);
    parts += ((long long)split * samples + s) * OUT * columns;
    const long long at = (long long)(tile.first + row) * tile.width + x;
    for (int o = 0; o < OUT; ++o)
        for (int p = 0; p < STRIP && x + p < tile.width; ++p)
            parts[o * columns + at + p] = sum[o][p];
}

extern "C" __global__ void __launch_bounds__(STRIPS) layer(
    const Geometry *geometry, int consumer, const int *rows, const int *counts, const real *features,
    const real *mean, const real *inv_std, const real *gamma, const real *beta, const real *W,
    real *parts)
{
    const Geometry g = *geometry;
    const int s = blockIdx.z, list = s * g.consumers + consumer;
    const Inputs h = inputs_of(g, s, features, mean, inv_std, gamma, beta);
    convolve<GROWTH, true>(
        g, h, rows + (long long)list * g.channels, counts[list], g.inputs + consumer * GROWTH, W,
        parts);
}

// The first convolution, of the images themselves, x: (channels, P).
extern "C" __global__ void __launch_bounds__(STRIPS) stem(
    const Geometry *geometry, int channels, const int *all, const real *x, const real *W, real *parts)
{
    const Geometry g = *geometry;
    const Inputs h = {x, 0, 0, 0, 0, columns_of(g)};
    convolve<STEM, false>(g, h, all, channels, channels, W, parts);
}

// The exit's inputs: means of 2x2 squares, (samples, channels, P / 4), or of whole images where
// the classifier follows, (samples, channels, images).  Row k is that of the k-th active channel.
extern "C" __global__ void pool(
    const Geometry *geometry, int squares, const int *rows, const int *counts, const real *features,
    const real *mean, const real *inv_std, const real *gamma, const real *beta, real *pooled)
{
    const Geometry g = *geometry;
    const int k = blockIdx.y, s = blockIdx.z, list = s * g.consumers + g.consumers - 1;
    if (k >= counts[list])
        return;
    const Inputs h = inputs_of(g, s, features, mean, inv_std, gamma, beta);
    const int channel = rows[(long long)list * g.channels + k];
    const long long size = pooled_size(g, squares);
    const long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (e >= size)
        return;
    const int pixels = g.height * g.width;
    real sum = 0;
    if (squares) {
        const int half = g.width / 2;
        const long long at = e / half * 2 * g.width + e % half * 2;
        for (int i = 0; i < 4; ++i)
            sum += h(channel, at + i / 2 * g.width + i % 2);
        sum /= 4;
    } else {
        for (int i = 0; i < pixels; ++i)
            sum += h(channel, e * pixels + i);
        sum /= pixels;
    }
    pooled[((long long)s * g.channels + k) * size + e] = sum;
}

struct Gathered {  // W[i, rows[k]]
    static const bool along_k = true;
    const real *W;
    const int *rows;
    int below;
    __device__ real operator()(int i, int k) const { return W[(long long)i * below + rows[k]]; }
};

// A transition's 1x1 convolution, which may change places with the averages: parts, (1, samples,
// out, P / 4), of what becomes the next block's input.
extern "C" __global__ void transition(
    const Geometry *geometry, const int *rows, const int *counts, int out, const real *pooled, const real *W,
    real *parts)
{
    const Geometry g = *geometry;
    const int s = blockIdx.z, list = s * g.consumers + g.consumers - 1;
    const long long size = columns_of(g) / 4;
    multiply<64, 64, 16, 4, 4>(
        out, (int)size, counts[list],
        Gathered{W, rows + (long long)list * g.channels, g.channels},
        Rows{pooled + (long long)s * g.channels * size, size},
        Store{parts + (long long)s * out * size, size});
}

// The classifier's outputs, the softmax cross entropy and its gradient: a block an example of a
// structure.  gy: (samples * images, classes), times scale.
extern "C" __global__ void classify_pooled(
    const Geometry *geometry, const int *rows, const int *counts, int classes, const real *pooled, const real *W,
    const real *b, const int *t, real scale, double *row_losses, real *gy)
{
    const Geometry g = *geometry;
    __shared__ real logits[MAX_CLASSES];
    __shared__ int examples;
    const int row = blockIdx.x, s = row / g.images, image = row % g.images;
    const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    const int list = s * g.consumers + g.consumers - 1, count = counts[list];
    const int *own = rows + (long long)list * g.channels;
    pooled += (long long)s * g.channels * g.images + image;
    for (int c = threadIdx.x / WARP; c < classes; c += warps) {
        real sum = 0;
        for (int k = lane; k < count; k += WARP)
            sum += pooled[(long long)k * g.images] * W[(long long)c * g.channels + own[k]];
        sum = warp_sum(sum);
        if (lane == 0)
            logits[c] = sum + b[c];
    }
    if (threadIdx.x < WARP) {
        const int count = labelled(t, g.images);
        if (threadIdx.x == 0)
            examples = count;
    }
    __syncthreads();
    scale = scale_of(scale, g.images, examples);
    softmax_cross_entropy(
        logits, classes, t[image], scale, row_losses + row, gy + (long long)row * classes);
}
