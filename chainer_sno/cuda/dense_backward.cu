// The DenseNet from the losses back to the gradients; what the kernels share is in dense.cuh.

// Set memory to zero; size is in words of four bytes.
extern "C" __global__ void clear(word *out, long long size)
{
    const long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (e < size)
        out[e] = 0;
}

struct GatheredBack {  // Gathered, transposed: W[k, rows[i]]
    static const bool along_k = false;
    const real *W;
    const int *rows;
    int below;
    __device__ real operator()(int i, int k) const { return W[(long long)k * below + rows[i]]; }
};

struct Slab {  // m[i, begin + k]
    static const bool along_k = true;
    const real *m;
    long long size, begin;
    __device__ real operator()(int i, int k) const { return m[i * size + begin + k]; }
};

struct SlabBack {  // m[j, begin + k] at (k, j)
    static const bool along_k = true;
    const real *m;
    long long size, begin;
    __device__ real operator()(int k, int j) const { return m[j * size + begin + k]; }
};

// The gradient at a transition's inputs: gpooled[k, j] for the active channels.
extern "C" __global__ void transition_back(
    const Geometry *geometry, const int *rows, const int *counts, int out, const real *gy, const real *W,
    real *gpooled)
{
    const Geometry g = *geometry;
    const int s = blockIdx.z, list = s * g.consumers + g.consumers - 1;
    const long long size = columns_of(g) / 4;
    multiply<64, 64, 16, 4, 4>(
        counts[list], (int)size, out,
        GatheredBack{W, rows + (long long)list * g.channels, g.channels},
        Rows{gy + (long long)s * out * size, size},
        Store{gpooled + (long long)s * g.channels * size, size});
}

// The gradient of its weights, for slabs of columns: parts (slabs, samples, out, channels), where
// column k is the k-th active channel.  Blocks (.., .., slabs * samples).
extern "C" __global__ void transition_weights(
    const Geometry *geometry, const int *counts, int out, int samples, const real *gy, const real *pooled,
    real *parts)
{
    const Geometry g = *geometry;
    const int s = blockIdx.z % samples, slab = blockIdx.z / samples, slabs = gridDim.z / samples;
    const int count = counts[s * g.consumers + g.consumers - 1];
    const long long size = columns_of(g) / 4, share = (size + slabs - 1) / slabs;
    const long long begin = slab * share, end = begin + share < size ? begin + share : size;
    multiply<32, 32, 32, 2, 2>(
        out, count, end > begin ? (int)(end - begin) : 0,
        Slab{gy + (long long)s * out * size, size, begin},
        SlabBack{pooled + (long long)s * g.channels * size, size, begin},
        Store{parts + (long long)blockIdx.z * out * g.channels, g.channels});
}

// The gradient of the transition's weights: the sum of the parts.  W: (out, channels).
extern "C" __global__ void transition_sum(
    const Geometry *geometry, int out, int samples, int slabs, const real *structures, const real *parts,
    real *gradient)
{
    const Geometry g = *geometry;
    const int e = blockIdx.x * blockDim.x + threadIdx.x, channel = e % g.channels;
    if (e >= out * g.channels)
        return;
    real sum = 0;
    for (int s = 0; s < samples; ++s) {
        const real *bits = structures + (long long)s * g.bits + first_bit_of(g, g.consumers - 1);
        const int place = place_of(g, bits, channel);
        for (int slab = 0; place >= 0 && slab < slabs; ++slab)
            sum += parts[(((long long)slab * samples + s) * out + e / g.channels) * g.channels +
                         place];
    }
    gradient[e] = sum;
}

// The gradients of the classifier's weights and biases, (classes, channels) and (classes).
extern "C" __global__ void classifier_gradient(
    const Geometry *geometry, int classes, int samples, const real *structures, const real *pooled,
    const real *gy, real *gW, real *gb)
{
    const Geometry g = *geometry;
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    const int c = e / (g.channels + 1), channel = e % (g.channels + 1);
    if (c >= classes)
        return;
    real sum = 0;
    for (int s = 0; s < samples; ++s) {
        const real *bits = structures + (long long)s * g.bits + first_bit_of(g, g.consumers - 1);
        const int place = channel < g.channels ? place_of(g, bits, channel) : 0;
        const real *x = pooled + ((long long)s * g.channels + place) * g.images;
        for (int image = 0; place >= 0 && image < g.images; ++image)
            sum += gy[((long long)s * g.images + image) * classes + c] *
                   (channel < g.channels ? x[image] : 1);
    }
    if (channel < g.channels)
        gW[(long long)c * g.channels + channel] = sum;
    else
        gb[c] = sum;
}

// The gradient at the classifier's inputs: gpooled[k, image] for the active channels.
extern "C" __global__ void classifier_back(
    const Geometry *geometry, const int *rows, const int *counts, int classes, const real *gy, const real *W,
    real *gpooled)
{
    const Geometry g = *geometry;
    const int k = blockIdx.y, s = blockIdx.z, list = s * g.consumers + g.consumers - 1;
    const int image = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= counts[list] || image >= g.images)
        return;
    const int channel = rows[(long long)list * g.channels + k];
    real sum = 0;
    for (int c = 0; c < classes; ++c)
        sum += gy[((long long)s * g.images + image) * classes + c] *
               W[(long long)c * g.channels + channel];
    gpooled[((long long)s * g.channels + k) * g.images + image] = sum;
}

// What a consumer's way back through BN and ReLU adds, statistics aside: to the gradient of a
// feature map, and to the sums behind those of gamma and beta.
struct Deactivation {
    const real *row;
    real *grow;  // of the gradient of the feature map
    real mean, scale, beta;
    __device__ Deactivation(const Inputs &h, real *gfeatures, int channel)
        : row(h.features + channel * h.columns), grow(gfeatures + channel * h.columns),
          mean(h.mean[channel]), scale(h.scale(channel)), beta(h.beta[channel])
    {
    }
    // In the first present, one at least, of N columns, which lie a step apart.
    template <int N>
    __device__ void operator()(
        int column, int step, int present, const real (&gradient)[N], real &sum,
        real &sum_centred) const
    {
        real values[N], before[N];  // all of them, for a store keeps the loads after it back
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int at = column + (i < present ? i * step : 0);
            values[i] = row[at];
            before[i] = grow[at];
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const real centred = values[i] - mean;
            if (i < present && !(centred * scale + beta <= 0)) {
                grow[column + i * step] = before[i] + scale * gradient[i];
                sum += gradient[i];
                sum_centred += gradient[i] * centred;
            }
        }
    }
};

// The exit's way back: gpooled to the gradients of the feature maps.
//   sums: (samples, channels, tiles, 2), by channel
// Blocks (tiles, channels, samples), 256 threads of CHUNK columns.
extern "C" __global__ void __launch_bounds__(256) exit_back(
    const Geometry *geometry, int squares, const int *rows, const int *counts, const real *features,
    const real *mean, const real *inv_std, const real *gamma, const real *beta,
    const real *gpooled, real *gfeatures, double *sums)
{
    const Geometry g = *geometry;
    const int k = blockIdx.y, s = blockIdx.z, list = s * g.consumers + g.consumers - 1;
    if (k >= counts[list])
        return;
    const int channel = rows[(long long)list * g.channels + k];
    const Inputs h = inputs_of(g, s, features, mean, inv_std, gamma, beta);
    const long long columns = columns_of(g), size = pooled_size(g, squares);
    const Deactivation back(h, gfeatures + (long long)s * g.channels * columns, channel);
    const real *own = gpooled + ((long long)s * g.channels + k) * size;
    const int pixels = g.height * g.width;
    real sum = 0, sum_centred = 0;
    const int first = blockIdx.x * CHUNK + threadIdx.x, last = (int)columns - 1;
    if (first <= last) {
        real gradient[CHUNK / 256];
#pragma unroll
        for (int i = 0; i < CHUNK / 256; ++i) {
            const int column = first + i * 256 < last ? first + i * 256 : last;
            int from = column / pixels;
            if (squares)
                from = column / g.width / 2 * (g.width / 2) + column % g.width / 2;
            gradient[i] = own[from] / (squares ? 4 : pixels);
        }
        back(first, 256, (last - first) / 256 + 1, gradient, sum, sum_centred);
    }
    sum = block_sum<256>(sum);
    sum_centred = block_sum<256>(sum_centred);
    if (threadIdx.x == 0) {
        double *out = sums + (((long long)s * g.channels + channel) * gridDim.x + blockIdx.x) * 2;
        out[0] = sum;
        out[1] = sum_centred;
    }
}

// Feature maps that stand one after the other; beyond those present, the first of them again.
struct Plain {
    const real *maps;
    long long columns;
    int present;
    __device__ const real *row(int m) const { return maps + (m < present ? m : 0) * columns; }
    __device__ real of(int, real value) const { return value; }
};

// The gradient at a layer's inputs.  gy: (samples, GROWTH, P); sums as in exit_back.
// Blocks (tiles, groups of channels, samples), STRIPS threads.
extern "C" __global__ void __launch_bounds__(STRIPS) layer_back(
    const Geometry *geometry, int consumer, const int *rows, const int *counts, const int *live,
    const real *features, const real *mean, const real *inv_std, const real *gamma,
    const real *beta, const real *W, const real *gy, real *gfeatures, double *sums)
{
    const Geometry g = *geometry;
    __shared__ real buffer[GROWTH][TILE], weights[GROWTH][9][GROUP];
    const int s = blockIdx.z, list = s * g.consumers + consumer, k = blockIdx.y * GROUP;
    const int count = counts[list] - k < GROUP ? counts[list] - k : GROUP;
    if (count <= 0 || !live[list])
        return;
    const int *own = rows + (long long)list * g.channels + k;
    const long long columns = columns_of(g);
    const int below = g.inputs + consumer * GROWTH;
    const Inputs h = inputs_of(g, s, features, mean, inv_std, gamma, beta);
    const Tile tile(g, blockIdx.x);
    for (int o = 0; o < GROWTH; o += READ) {
        const int maps = GROWTH - o < READ ? GROWTH - o : READ;
        tile.load<STRIPS, READ>(
            buffer + o, maps, Plain{gy + ((long long)s * GROWTH + o) * columns, columns, maps});
    }
    fetch<7>(
        threadIdx.x, GROWTH * 9 * GROUP, STRIPS,
        [&](int e) {
            const int o = e / (9 * GROUP), tap = e / GROUP % 9, c = e % GROUP;
            return W[((long long)o * below + own[c < count ? c : 0]) * 9 + tap];
        },
        [&](int e, real w) {
            weights[e / (9 * GROUP)][e / GROUP % 9][e % GROUP] = e % GROUP < count ? w : 0;
        });
    __syncthreads();
    const int row = threadIdx.x / tile.strips, x = threadIdx.x % tile.strips * STRIP;
    const bool present = row < tile.present();
    real sum[GROUP][STRIP];
    for (int c = 0; c < GROUP; ++c)
        for (int p = 0; p < STRIP; ++p)
            sum[c][p] = 0;
    for (int o = 0; present && o < GROWTH; ++o)
        for (int dy = 0; dy < 3; ++dy) {
            const real *line = buffer[o] + tile.begin(row, 1 - dy) + x;
            real value[STRIP + 2];
            for (int p = 0; p < STRIP + 2; ++p)
                value[p] = x + p < tile.stride ? line[p] : 0;
#pragma unroll
            for (int dx = 0; dx < 3; ++dx)
#pragma unroll
                for (int c = 0; c < GROUP; ++c) {
                    const real w = weights[o][dy * 3 + dx][c];
#pragma unroll
                    for (int p = 0; p < STRIP; ++p)
                        sum[c][p] += w * value[p + 2 - dx];
                }
        }
    const long long at = (long long)(tile.first + row) * tile.width + x;
#pragma unroll
    for (int c = 0; c < GROUP; ++c) {  // whose number is known, so that the sums stay registers
        if (c >= count)
            break;
        real total = 0, total_centred = 0;
        if (present) {
            const Deactivation back(h, gfeatures + (long long)s * g.channels * columns, own[c]);
            back((int)at, 1, tile.width - x, sum[c], total, total_centred);
        }
        total = block_sum<STRIPS>(total);
        total_centred = block_sum<STRIPS>(total_centred);
        if (threadIdx.x == 0) {
            double *out =
                sums + (((long long)s * g.channels + own[c]) * gridDim.x + blockIdx.x) * 2;
            out[0] = total;
            out[1] = total_centred;
        }
    }
}

// The gradient of a convolution's weights, for slabs of tiles: parts (slabs, samples, below, OUT,
// 9), by channel.  Blocks (groups of channels, slabs, samples), 3 * WEIGHT_GROUP * SLICES threads:
// each has a channel, a row of the 3x3 and some rows of a tile.
template <int OUT, bool NORMALISED>
__device__ void weigh(
    const Geometry &g, const Inputs &h, const int *rows, int count, int below, const real *gy,
    real *parts)
{
    __shared__ real a[WEIGHT_GROUP][TILE], buffer[TILE_PIXELS][OUT];
    __shared__ real slices[SLICES][WEIGHT_GROUP * 3 * 3];
    const int BLOCK = 3 * WEIGHT_GROUP * SLICES;
    const int k = blockIdx.x * WEIGHT_GROUP, slab = blockIdx.y, slabs = gridDim.y;
    const int s = blockIdx.z, samples = gridDim.z;
    const int present = count - k < WEIGHT_GROUP ? count - k : WEIGHT_GROUP;
    if (present <= 0)
        return;
    const int dy = threadIdx.x % 3, c = threadIdx.x / 3 % WEIGHT_GROUP;
    const int slice = threadIdx.x / (3 * WEIGHT_GROUP);
    const long long columns = columns_of(g);
    const int lines = STRIPS / ((g.width + STRIP - 1) / STRIP);
    const int tiles = (g.images * g.height + lines - 1) / lines;
    real sum[OUT][3];
    for (int o = 0; o < OUT; ++o)
        for (int dx = 0; dx < 3; ++dx)
            sum[o][dx] = 0;
    for (int number = slab; number < tiles; number += slabs) {
        const Tile tile(g, number);
        const int pixels = tile.present() * tile.width;
        const long long begin = (long long)tile.first * tile.width;
        for (int i = 0; i < present; i += READ) {
            const int channels = present - i < READ ? present - i : READ;
            tile.load<BLOCK, READ>(
                a + i, channels, Activated<READ, NORMALISED>(h, rows + k + i, channels));
        }
        for (int pixel = threadIdx.x; pixel < pixels; pixel += BLOCK) {
            real values[OUT];
#pragma unroll
            for (int o = 0; o < OUT; ++o)
                values[o] = gy[o * columns + begin + pixel];
#pragma unroll
            for (int o = 0; o < OUT; ++o)
                buffer[pixel][o] = values[o];
        }
        __syncthreads();
        for (int row = slice; c < present && row < tile.present(); row += SLICES) {
            const real *line = a[c] + tile.begin(row, dy - 1);
            real v0 = line[0], v1 = line[1];
            for (int x = 0; x < tile.width; ++x) {
                const real v2 = line[x + 2];
                const real *gradient = buffer[row * tile.width + x];
#pragma unroll
                for (int o = 0; o < OUT; ++o) {
                    sum[o][0] += gradient[o] * v0;
                    sum[o][1] += gradient[o] * v1;
                    sum[o][2] += gradient[o] * v2;
                }
                v0 = v1;
                v1 = v2;
            }
        }
        __syncthreads();
    }
    parts += ((long long)slab * samples + s) * below * OUT * 9;
    for (int o = 0; o < OUT; ++o) {
        for (int dx = 0; dx < 3; ++dx)
            slices[slice][(c * 3 + dy) * 3 + dx] = sum[o][dx];
        __syncthreads();
        for (int e = threadIdx.x; e < present * 9; e += blockDim.x) {
            real total = 0;
            for (int i = 0; i < SLICES; ++i)
                total += slices[i][e];
            parts[((long long)rows[k + e / 9] * OUT + o) * 9 + e % 9] = total;
        }
        __syncthreads();
    }
}

extern "C" __global__ void layer_weights(
    const Geometry *geometry, int consumer, const int *rows, const int *counts, const int *live,
    const real *features, const real *mean, const real *inv_std, const real *gamma,
    const real *beta, const real *gy, real *parts)
{
    const Geometry g = *geometry;
    const int s = blockIdx.z, list = s * g.consumers + consumer;
    if (!live[list])
        return;
    const Inputs h = inputs_of(g, s, features, mean, inv_std, gamma, beta);
    weigh<GROWTH, true>(
        g, h, rows + (long long)list * g.channels, counts[list], g.inputs + consumer * GROWTH,
        gy + (long long)s * GROWTH * columns_of(g), parts);
}

extern "C" __global__ void stem_weights(
    const Geometry *geometry, int channels, const int *all, const real *x, const real *gy, real *parts)
{
    const Geometry g = *geometry;
    const Inputs h = {x, 0, 0, 0, 0, columns_of(g)};
    weigh<STEM, false>(g, h, all, channels, channels, gy, parts);
}

// The gradient of a layer's weights: the sum of the parts.  W: (GROWTH, below, 3, 3).
extern "C" __global__ void layer_sum(
    const Geometry *geometry, int consumer, int samples, int slabs, const real *structures, const int *live,
    const real *parts, real *gradient)
{
    const Geometry g = *geometry;
    const int e = blockIdx.x * blockDim.x + threadIdx.x, below = g.inputs + consumer * GROWTH;
    if (e >= GROWTH * below * 9)
        return;
    const int o = e / 9 / below, channel = e / 9 % below, tap = e % 9;
    real sum = 0;
    for (int s = 0; s < samples; ++s) {
        const real *bits = structures + (long long)s * g.bits + first_bit_of(g, consumer);
        if (bits[source_of(channel, g.inputs)] == 0 || !live[s * g.consumers + consumer])
            continue;
        for (int slab = 0; slab < slabs; ++slab)
            sum += parts[((((long long)slab * samples + s) * below + channel) * GROWTH + o) * 9 +
                         tap];
    }
    gradient[e] = sum;
}

// The same for the first convolution.  W: (STEM, channels, 3, 3).
extern "C" __global__ void stem_sum(int channels, int slabs, const real *parts, real *gradient)
{
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= STEM * channels * 9)
        return;
    const int o = e / 9 / channels, channel = e / 9 % channels;
    real sum = 0;
    for (int slab = 0; slab < slabs; ++slab)
        sum += parts[(((long long)slab * channels + channel) * STEM + o) * 9 + e % 9];
    gradient[e] = sum;
}
