// DenseNet with connections under selection; only active connections cost anything.  This is what
// its kernels share; they are in dense_forward.cu, dense_normalisation.cu and dense_backward.cu.
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

// Columns of the exit's inputs, of a structure's channel: one a 2x2 square, or one an image where the
// classifier follows.
__device__ long long pooled_size(const Geometry &g, int squares)
{
    return squares ? columns_of(g) / 4 : g.images;
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

struct Rows {  // m[k, j]
    static const bool along_k = false;
    const real *m;
    long long size;
    __device__ real operator()(int k, int j) const { return m[k * size + j]; }
};

struct Store {
    real *out;
    long long size;
    __device__ void operator()(int i, int j, real value) const { out[i * size + j] = value; }
};
