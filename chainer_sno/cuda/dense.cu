// DenseNet with connections under selection; only active connections cost anything.
//
// Feature maps are channel-major: (structures, channels, P) with P = images * height * width
// columns, one buffer a block.  A consumer is a layer or, last, the exit of a block; it selects
// among the channels below it.  What is active is known on the device alone: kernels are launched
// for all channels, read how many there are, and leave if there is nothing to do.
//
// GROWTH and STEM are the output channels of a layer and of the first convolution, TILE the most
// numbers that a tile of rows needs with its borders.

// The numbers of threads and channels are those of dense.py, which launches the kernels:
//   STRIPS        threads of a tile; each has a strip of STRIP pixels of one row
//   READ          feature maps that a block asks memory for at once
//   GROUP         channels for which its gradient is computed at once
//   WEIGHT_GROUP  the same for the gradient of its weights, for SLICES rows of a tile
//   CHUNK         columns of one partial mean
#define TILE_PIXELS (STRIPS * STRIP)

struct Geometry {
    int images, height, width;
    int channels;    // of the buffer
    int bits;        // of all blocks
    int first_bit;   // of this block
    int inputs;      // channels of the block's input
    int consumers;
};

__device__ int columns_of(const Geometry &g)
{
    return g.images * g.height * g.width;
}

// The bit, of those of its consumer, that a channel hangs on.
__device__ int source_of(int channel, int inputs)
{
    return channel < inputs ? 0 : 1 + (channel - inputs) / GROWTH;
}

__device__ int first_bit_of(const Geometry &g, int consumer)
{
    return g.first_bit + consumer * (consumer + 1) / 2;
}

// Where a channel stands among the active ones of a consumer, -1 where it is not active.
__device__ int place_of(const Geometry &g, const real *bits, int channel)
{
    const int source = source_of(channel, g.inputs);
    if (bits[source] == 0)
        return -1;
    int place = bits[0] != 0 ? (source ? g.inputs : channel) : 0;
    for (int i = 1; i < source; ++i)
        place += bits[i] != 0 ? GROWTH : 0;
    return source ? place + (channel - g.inputs) % GROWTH : place;
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

// How a consumer sees the channels below it.
struct Inputs {
    const real *features, *mean, *inv_std;  // of one structure
    const real *gamma, *beta;               // of one consumer; null where nothing is normalised
    long long columns;
    __device__ real scale(int channel) const { return gamma[channel] * inv_std[channel]; }
    __device__ real operator()(int channel, long long column) const
    {
        const real value = features[channel * columns + column];
        if (!gamma)
            return value;
        return positive((value - mean[channel]) * scale(channel) + beta[channel]);
    }
};

__device__ Inputs inputs_of(
    const Geometry &g, int s, const real *features, const real *mean, const real *inv_std,
    const real *gamma, const real *beta)
{
    const long long columns = columns_of(g);
    const long long own = (long long)s * g.channels;
    return Inputs{features + own * columns, mean + own, inv_std + own, gamma, beta, columns};
}

// A tile of whole rows of images, with a border of zeros left and right, and the rows before and
// behind it.  Row 0 of the buffer is the row before; the last one is zero.
struct Tile {
    int strips, rows, stride, first, total, height, width;
    __device__ Tile(const Geometry &g, int tile)
    {
        strips = (g.width + STRIP - 1) / STRIP;
        rows = STRIPS / strips;
        stride = g.width + 2;
        first = tile * rows;
        total = g.images * g.height;
        height = g.height;
        width = g.width;
    }
    // Rows of the tile within the images.
    __device__ int present() const { return total - first < rows ? total - first : rows; }
    // Where, in the buffer, the row at an offset of -1, 0 or 1 from a row of the tile begins.
    __device__ int begin(int row, int offset) const
    {
        const int y = (first + row) % height + offset;
        return (y < 0 || y >= height ? rows + 2 : row + 1 + offset) * stride;
    }
    // Fill the buffers of the first present of MAPS feature maps, by a block of BLOCK threads.
    // Everything that a thread loads it asks for at once, also where nothing is used: what takes
    // the time is the way to memory.
    template <int BLOCK, int MAPS, class F>
    __device__ void load(real (*buffer)[TILE], int present, const F &maps) const
    {
        const int ahead = (TILE + BLOCK - 1) / BLOCK < 6 ? (TILE + BLOCK - 1) / BLOCK : 6;
        const int size = (rows + 3) * stride;
        for (int begin = threadIdx.x; begin < size; begin += ahead * BLOCK) {
            int from[ahead];  // -1 outside of the images
            real values[MAPS][ahead];
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const int e = begin + i * BLOCK, row = (word)e / (word)stride;
                const int x = e - row * stride - 1, at = first + row - 1;
                const bool inside = row < rows + 2 && at >= 0 && at < total && x >= 0 && x < width;
                from[i] = inside ? at * width + x : -1;
            }
#pragma unroll
            for (int m = 0; m < MAPS; ++m)
#pragma unroll
                for (int i = 0; i < ahead; ++i)
                    values[m][i] = maps.row(m)[from[i] < 0 ? 0 : from[i]];
#pragma unroll
            for (int m = 0; m < MAPS; ++m)
#pragma unroll
                for (int i = 0; i < ahead; ++i) {
                    const real value = maps.of(m, values[m][i]);
                    if (m < present && begin + i * BLOCK < size)
                        buffer[m][begin + i * BLOCK] = from[i] < 0 ? 0 : value;
                }
        }
    }
};

// Some channels as a consumer sees them; beyond those present, the first of them again.
template <int MAPS, bool NORMALISED> struct Activated {
    const real *rows[MAPS];
    real mean[MAPS], scale[MAPS], beta[MAPS];
    __device__ Activated(const Inputs &h, const int *channels, int present)
    {
#pragma unroll
        for (int m = 0; m < MAPS; ++m) {
            const int channel = channels[m < present ? m : 0];
            rows[m] = h.features + channel * h.columns;
            if (NORMALISED) {
                mean[m] = h.mean[channel];
                scale[m] = h.scale(channel);
                beta[m] = h.beta[channel];
            }
        }
    }
    __device__ const real *row(int m) const { return rows[m]; }
    __device__ real of(int m, real value) const
    {
        return NORMALISED ? positive((value - mean[m]) * scale[m] + beta[m]) : value;
    }
};

// Feature maps that stand one after the other; beyond those present, the first of them again.
struct Plain {
    const real *maps;
    long long columns;
    int present;
    __device__ const real *row(int m) const { return maps + (m < present ? m : 0) * columns; }
    __device__ real of(int, real value) const { return value; }
};

// Take elements begin, begin + step, .. below end, AHEAD of them at once: write(e, read(e)).
template <int AHEAD, class Read, class Write>
__device__ void fetch(int begin, int end, int step, const Read &read, const Write &write)
{
    for (; begin < end; begin += AHEAD * step) {
        real values[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i)
            values[i] = read(begin + i * step < end ? begin + i * step : begin);
#pragma unroll
        for (int i = 0; i < AHEAD; ++i)
            if (begin + i * step < end)
                write(begin + i * step, values[i]);
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

// Add the parts of new feature maps, put them in their place, and take partial statistics: the
// mean and the sum of squared deviations of every CHUNK columns, (samples, channels, chunks, 2).
//   shared: the parts are the same for all structures
// Blocks (chunks, new channels, samples), 256 threads.
extern "C" __global__ void __launch_bounds__(256) finish(
    const Geometry *geometry, int first, int splits, int shared, const real *parts, real *features,
    double *partial)
{
    const Geometry g = *geometry;
    const int chunk = blockIdx.x, o = blockIdx.y, s = blockIdx.z;
    const int sources = shared ? 1 : gridDim.z, source = shared ? 0 : s;
    const long long columns = columns_of(g), begin = (long long)chunk * CHUNK;
    const int size = columns - begin < CHUNK ? (int)(columns - begin) : CHUNK;
    const long long channel = (long long)s * g.channels + first + o;
    real values[CHUNK / 256];
    for (int i = 0; i < CHUNK / 256; ++i)
        values[i] = 0;
#pragma unroll 1
    for (int split = 0; split < splits; ++split) {
        const real *own =
            parts + (((long long)split * sources + source) * gridDim.y + o) * columns + begin;
        real part[CHUNK / 256];  // of all columns, before the first is needed
#pragma unroll
        for (int i = 0; i < CHUNK / 256; ++i)
            part[i] = own[i * 256 + (int)threadIdx.x < size ? i * 256 + threadIdx.x : 0];
#pragma unroll
        for (int i = 0; i < CHUNK / 256; ++i)
            values[i] += i * 256 + (int)threadIdx.x < size ? part[i] : 0;
    }
    real sum = 0;
    for (int i = 0; i < CHUNK / 256; ++i) {
        const int column = i * 256 + threadIdx.x;
        if (column < size)
            features[channel * columns + begin + column] = values[i];
        sum += values[i];
    }
    const real mean = block_sum<256>(sum) / size;
    real squares = 0;
    for (int i = 0; i < CHUNK / 256; ++i) {
        const real centred = values[i] - mean;
        squares += i * 256 + (int)threadIdx.x < size ? centred * centred : 0;
    }
    squares = block_sum<256>(squares);
    if (threadIdx.x == 0) {
        double *own = partial + (channel * gridDim.x + chunk) * 2;
        own[0] = mean;
        own[1] = squares;
    }
}

// The statistics of new feature maps, from those of their chunks.  A thread a channel.
extern "C" __global__ void combine(
    const Geometry *geometry, int first, int count, int samples, int chunks, const double *partial, double eps,
    real *mean, real *var, real *inv_std)
{
    const Geometry g = *geometry;
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= count * samples)
        return;
    const long long channel = (long long)(e / count) * g.channels + first + e % count;
    const long long columns = columns_of(g);
    double total = 0, average = 0, squares = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        const double *own = partial + (channel * chunks + chunk) * 2;
        const long long rest = columns - (long long)chunk * CHUNK;
        const double size = rest < CHUNK ? rest : CHUNK, distance = own[0] - average;
        squares += own[1] + distance * distance * total * size / (total + size);
        average += distance * size / (total + size);
        total += size;
    }
    mean[channel] = (real)average;
    var[channel] = (real)(squares / total);
    inv_std[channel] = (real)(1 / sqrt(squares / total + eps));
}

// The exit's inputs: means of 2x2 squares, (samples, channels, P / 4), or of whole images where
// the classifier follows, (samples, channels, images).  Row k is that of the k-th active channel.
__device__ long long pooled_size(const Geometry &g, int squares)
{
    return squares ? columns_of(g) / 4 : g.images;
}

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

// A matrix product of one tile, BM x BN, by a block of (BM / TM) * (BN / TN) threads: how operands
// are read and what becomes of an element is up to functors.
//   a(i, k), b(k, j): the operands; A::along_k and B::along_k say that neighbours in k are
//                     neighbours in memory
//   c(i, j, value):   takes an element of the product
template <int BM, int BN, int BK, int TM, int TN, class A, class B, class C>
__device__ void multiply(int m, int n, int k, const A &a, const B &b, const C &c)
{
    const int threads = (BM / TM) * (BN / TN), rows = BM / TM, columns = BN / TN;
    __shared__ real sa[BK][BM + 1], sb[BK][BN + 1];
    const int first_row = blockIdx.y * BM, first_column = blockIdx.x * BN;
    if (first_row >= m || first_column >= n)
        return;
    const int row = threadIdx.x / columns, column = threadIdx.x % columns;
    real sum[TM][TN];
    for (int p = 0; p < TM; ++p)
        for (int q = 0; q < TN; ++q)
            sum[p][q] = 0;
    for (int begin = 0; begin < k; begin += BK) {
        for (int e = threadIdx.x; e < BM * BK; e += threads) {
            const int i = A::along_k ? e / BK : e % BM, l = A::along_k ? e % BK : e / BM;
            const bool inside = first_row + i < m && begin + l < k;
            sa[l][i] = inside ? a(first_row + i, begin + l) : 0;
        }
        for (int e = threadIdx.x; e < BN * BK; e += threads) {
            const int j = B::along_k ? e / BK : e % BN, l = B::along_k ? e % BK : e / BN;
            const bool inside = first_column + j < n && begin + l < k;
            sb[l][j] = inside ? b(begin + l, first_column + j) : 0;
        }
        __syncthreads();
#pragma unroll 8
        for (int l = 0; l < BK; ++l) {
            real left[TM], right[TN];
            for (int p = 0; p < TM; ++p)
                left[p] = sa[l][row + p * rows];
            for (int q = 0; q < TN; ++q)
                right[q] = sb[l][column + q * columns];
            for (int p = 0; p < TM; ++p)
                for (int q = 0; q < TN; ++q)
                    sum[p][q] += left[p] * right[q];
        }
        __syncthreads();
    }
    for (int p = 0; p < TM; ++p)
        for (int q = 0; q < TN; ++q) {
            const int i = first_row + row + p * rows, j = first_column + column + q * columns;
            if (i < m && j < n)
                c(i, j, sum[p][q]);
        }
}

struct Gathered {  // W[i, rows[k]]
    static const bool along_k = true;
    const real *W;
    const int *rows;
    int below;
    __device__ real operator()(int i, int k) const { return W[(long long)i * below + rows[k]]; }
};

struct GatheredBack {  // the same, transposed: W[k, rows[i]]
    static const bool along_k = false;
    const real *W;
    const int *rows;
    int below;
    __device__ real operator()(int i, int k) const { return W[(long long)k * below + rows[i]]; }
};

struct Rows {  // m[k, j]
    static const bool along_k = false;
    const real *m;
    long long size;
    __device__ real operator()(int k, int j) const { return m[k * size + j]; }
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

struct Store {
    real *out;
    long long size;
    __device__ void operator()(int i, int j, real value) const { out[i * size + j] = value; }
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

// The gradient at its inputs: gpooled[k, j] for the active channels.
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

// The gradients of a consumer's gamma and beta, from their sums, and what they add to what flows
// through the batch statistics, (2, samples, channels): the sums over the consumers of
// gamma * ggamma and of gamma * gbeta.  Blocks (channels below), 64 threads.
extern "C" __global__ void __launch_bounds__(64) normalisation_back(
    const Geometry *geometry, int consumer, int samples, int tiles, const real *structures, const int *live,
    const double *sums, const real *inv_std, const real *gamma, double *through, real *ggamma,
    real *gbeta)
{
    const Geometry g = *geometry;
    const int channel = blockIdx.x;
    double total_gamma = 0, total_beta = 0;
    for (int s = 0; s < samples; ++s) {
        const real *bits = structures + (long long)s * g.bits + first_bit_of(g, consumer);
        if (bits[source_of(channel, g.inputs)] == 0 || !live[s * g.consumers + consumer])
            continue;
        const long long at = (long long)s * g.channels + channel;
        double sum = 0, sum_centred = 0;
        for (int tile = threadIdx.x; tile < tiles; tile += 64) {
            sum += sums[(at * tiles + tile) * 2];
            sum_centred += sums[(at * tiles + tile) * 2 + 1];
        }
        sum = block_sum<64>(sum);
        sum_centred = block_sum<64>(sum_centred) * inv_std[at];
        total_beta += sum;
        total_gamma += sum_centred;
        if (threadIdx.x == 0) {
            through[at] += gamma[channel] * sum_centred;
            through[(long long)samples * g.channels + at] += gamma[channel] * sum;
        }
    }
    if (threadIdx.x == 0) {
        ggamma[channel] = (real)total_gamma;
        gbeta[channel] = (real)total_beta;
    }
}

// The gradient of feature maps, complete: what flows through the batch statistics is known when
// the last consumer is through.  out: (samples, count, P), or (count, P), summed over the
// structures.  Blocks (.., count, samples or 1).
extern "C" __global__ void complete(
    const Geometry *geometry, int first, int samples, int summed, const real *features, const real *mean,
    const real *inv_std, const double *through, const real *gfeatures, real *out)
{
    const Geometry g = *geometry;
    const long long columns = columns_of(g);
    const long long column = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (column >= columns)
        return;
    const int begin = summed ? 0 : blockIdx.z, end = summed ? samples : begin + 1;
    real sum = 0;
    for (int s = begin; s < end; ++s) {
        const long long at = (long long)s * g.channels + first + blockIdx.y;
        const double inv = inv_std[at];
        const real slope = (real)(through[at] * inv * inv / columns);
        const real offset =
            (real)(through[(long long)samples * g.channels + at] * inv / columns);
        sum += gfeatures[at * columns + column] -
               slope * (features[at * columns + column] - mean[at]) - offset;
    }
    out[((long long)blockIdx.z * gridDim.y + blockIdx.y) * columns + column] = sum;
}

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

// The running statistics of all consumers of a block, structure by structure (readings R7, R16).
// averages: (consumers, 2, channels), means and variances.  Blocks (.., consumers).
extern "C" __global__ void running_statistics(
    const Geometry *geometry, int samples, real decay, real adjust, const real *mean, const real *var,
    real *averages)
{
    const Geometry g = *geometry;
    const int channel = blockIdx.x * blockDim.x + threadIdx.x, consumer = blockIdx.y;
    if (channel >= g.inputs + consumer * GROWTH)
        return;
    real *own = averages + (long long)consumer * 2 * g.channels + channel;
    for (int s = 0; s < samples; ++s) {
        const long long at = (long long)s * g.channels + channel;
        own[0] = own[0] * decay + mean[at] * (1 - decay);
        own[g.channels] = own[g.channels] * decay + var[at] * adjust * (1 - decay);
    }
}

// Set memory to zero; size is in words of four bytes.
extern "C" __global__ void clear(word *out, long long size)
{
    const long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (e < size)
        out[e] = 0;
}
