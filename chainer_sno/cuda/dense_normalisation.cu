// Batch normalisation in the DenseNet: the statistics of new feature maps, and the way back through
// them; what the kernels share is in dense.cuh.

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
