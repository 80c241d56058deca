// What every kernel is made of.  REAL is float or double, set when the source is compiled.
// Nothing is included, so that NVRTC needs no headers.

typedef REAL real;
typedef unsigned int word;
typedef unsigned long long wide;

// Threads of a warp.
#define WARP 32
// The class of examples that a loss leaves out, Chainer's ignore_label.
#define IGNORED -1

// Philox4x32 with ten rounds (Salmon et al., 2011): four random words, a function of a counter and
// a key alone.
__device__ void philox(word counter[4], word key0, word key1)
{
    for (int round = 0; round < 10; ++round) {
        const wide a = (wide)0xD2511F53u * counter[0], b = (wide)0xCD9E8D57u * counter[2];
        const word c1 = counter[1], c3 = counter[3];
        counter[0] = (word)(b >> 32) ^ c1 ^ key0;
        counter[1] = (word)b;
        counter[2] = (word)(a >> 32) ^ c3 ^ key1;
        counter[3] = (word)a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// The uniform number in [0, 1), of 53 bits, at a row and a column of a stream.
__device__ double uniform(word key0, word key1, long long row, word column)
{
    word counter[4] = {(word)row, (word)(row >> 32), column / 2, 0};
    philox(counter, key0, key1);
    const word low = column % 2 ? counter[2] : counter[0];
    const word high = column % 2 ? counter[3] : counter[1];
    return (double)((((wide)high << 32) | low) >> 11) * (1.0 / 9007199254740992.0);
}

// The same number cut to the 24 bits that float32 holds.
__device__ float short_uniform(word key0, word key1, long long row, word column)
{
    return (float)(int)(uniform(key0, key1, row, column) * 16777216.0) * (1.0f / 16777216.0f);
}

// relu(x).  What is no number stays so, as in NumPy: a comparison with it is false.
__device__ real positive(real x)
{
    return x <= 0 ? 0 : x;
}

// The sum over the threads of a warp, in its first thread.
template <class T> __device__ T warp_sum(T value)
{
    for (int distance = WARP / 2; distance; distance /= 2)
        value += __shfl_down_sync(0xffffffffu, value, distance);
    return value;
}

// The sum over the threads of a block, in every thread.
template <int THREADS, class T> __device__ T block_sum(T value)
{
    __shared__ T sums[THREADS / WARP];
    value = warp_sum(value);
    __syncthreads();  // the sums of a call before may still be read
    if (threadIdx.x % WARP == 0)
        sums[threadIdx.x / WARP] = value;
    __syncthreads();
    T total = 0;
    for (int i = 0; i < THREADS / WARP; ++i)
        total += sums[i];
    return total;
}

// How many of n examples have a class, at least 1, in the first thread of a warp, by the warp.
__device__ int labelled(const int *t, int n)
{
    int count = 0;
    for (int j = threadIdx.x % WARP; j < n; j += WARP)
        count += t[j] != IGNORED;
    count = warp_sum(count);
    return count > 1 ? count : 1;
}

// The scale of the gradients of n examples, where those without a class count nothing.
__device__ real scale_of(real scale, int n, int labelled)
{
    return labelled < n ? scale * (real)((double)n / labelled) : scale;
}

// The softmax cross entropy of one example, by a block, from logits that all threads see; nothing
// where the example has no class.
//   gradient[c] = (p - [c = target]) * scale
__device__ void softmax_cross_entropy(
    const real *logits, int classes, int target, real scale, double *loss, real *gradient)
{
    if (target == IGNORED) {
        for (int c = threadIdx.x; c < classes; c += blockDim.x)
            gradient[c] = 0;
        if (threadIdx.x == 0)
            *loss = 0;
        return;
    }
    real largest = logits[0], total = 0;
    for (int c = 1; c < classes; ++c)
        largest = logits[c] > largest ? logits[c] : largest;
    for (int c = 0; c < classes; ++c)
        total += exp(logits[c] - largest);
    for (int c = threadIdx.x; c < classes; c += blockDim.x)
        gradient[c] = (exp(logits[c] - largest) / total - (c == target)) * scale;
    if (threadIdx.x == 0)
        *loss = log(total) + largest - logits[target];
}
