// The method itself: drawing structures, the ranking and equation (7); and cutting mini-batches out
// of data on the device.

// The largest number of float64.
#define MOST 1.7976931348623157e308

// Where a training stands; on the device, since a captured iteration must find it there.
struct Progress {
    long long position;      // examples taken so far
    long long structures;    // rows taken of the stream of structures
    long long augmentation;  // rows taken of the stream of the augmentation
    long long dropout;       // rows taken of the stream of Dropout
    double loss;             // the sum of the mean losses since the last report
    long long losses;        // how many
};

// Structures M ~ p(M | theta): out[s, i] is 0 or 1.
extern "C" __global__ void sample(
    word key0, word key1, const Progress *progress, const double *theta, int samples, int d,
    real *out)
{
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e < samples * d) {
        const int s = e / d, i = e % d;
        out[e] = uniform(key0, key1, progress->structures + s, i) < theta[i] ? 1 : 0;
    }
}

// Factors of Dropout, 0 or 1 / (1 - ratio): out[n, i].
extern "C" __global__ void drop(
    word key0, word key1, const Progress *progress, float ratio, real factor, int n, int d,
    real *out)
{
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e < n * d)
        out[e] = short_uniform(key0, key1, progress->dropout + e / d, e % d) >= ratio ? factor : 0;
}

// Which example is the j-th of the mini-batch.  orders[epoch % 2] is the order of an epoch.
__device__ int example(const Progress *progress, const int *orders, int examples, int j)
{
    const long long at = progress->position + j, epoch = at / examples;
    return orders[epoch % 2 * examples + at % examples];
}

template <class T>
__device__ void take(
    const Progress *progress, const int *orders, int examples, const T *data, const int *labels,
    int n, int channels, int pixels, real divisor, real *x, int *t)
{
    const long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (e >= (long long)channels * n * pixels)
        return;
    const int channel = (int)(e / ((long long)n * pixels)), j = (int)(e / pixels % n);
    const int pixel = (int)(e % pixels), from = example(progress, orders, examples, j);
    x[e] = (real)data[((long long)from * channels + channel) * pixels + pixel] / divisor;
    if (channel == 0 && pixel == 0)
        t[j] = labels[from];
}

// A mini-batch of bytes or of numbers, divided by a number: x[channel, j, :] and t[j].
extern "C" __global__ void take_bytes(
    const Progress *progress, const int *orders, int examples, const unsigned char *data,
    const int *labels, int n, int channels, int pixels, real divisor, real *x, int *t)
{
    take(progress, orders, examples, data, labels, n, channels, pixels, divisor, x, t);
}

extern "C" __global__ void take_reals(
    const Progress *progress, const int *orders, int examples, const real *data, const int *labels,
    int n, int channels, int pixels, real divisor, real *x, int *t)
{
    take(progress, orders, examples, data, labels, n, channels, pixels, divisor, x, t);
}

// A mini-batch of images of section 4.2: standardised, padded with zeros, cropped and flipped.
// x is channel-major, (channels, n * height * width).
extern "C" __global__ void take_images(
    const Progress *progress, const int *orders, int examples, const unsigned char *data,
    const int *labels, int n, int channels, int height, int width, const float *mean,
    const float *std, int padding, word key0, word key1, real *x, int *t)
{
    const int pixels = height * width;
    const long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (e >= (long long)channels * n * pixels)
        return;
    const int channel = (int)(e / ((long long)n * pixels)), j = (int)(e / pixels % n);
    const int pixel = (int)(e % pixels), row = pixel / width, column = pixel % width;
    const int from = example(progress, orders, examples, j);
    int y = row, z = column;
    if (padding) {
        const long long drawn = progress->augmentation + j;
        const float places = 2 * padding + 1;
        y += (int)(short_uniform(key0, key1, drawn, 0) * places) - padding;
        z = short_uniform(key0, key1, drawn, 2) < 0.5f ? column : width - 1 - column;
        z += (int)(short_uniform(key0, key1, drawn, 1) * places) - padding;
    }
    real value = 0;
    if (y >= 0 && y < height && z >= 0 && z < width) {
        const unsigned char byte = data[((long long)from * channels + channel) * pixels + y * width + z];
        value = ((real)byte - mean[channel]) / std[channel];
    }
    x[e] = value;
    if (channel == 0 && pixel == 0)
        t[j] = labels[from];
}

// The ranking utility of section 3; cumulative[i] is the sum of the utilities of the best i ranks.
__device__ double utility(const double *losses, int samples, int s, const double *cumulative)
{
    int better = 0, equal = 0;
    const double own = losses[s];
    for (int i = 0; i < samples; ++i) {
        const double other = losses[i];
        // What is not a number ranks with the infinite ones, last.
        const bool last = !(own < MOST), other_last = !(other < MOST);
        better += last ? !other_last : other < own;
        equal += last ? other_last : other == own;
    }
    return (cumulative[better + equal] - cumulative[better]) / equal;
}

// Equation (7) and the clamp for one bit.  No multiplication is fused with an addition, so that
// the bits are those of NumPy.
__device__ double moved(
    double theta, const real *structures, int d, int i, const double *utilities, int samples,
    double penalty, double eta)
{
    double sum = 0;
    for (int s = 0; s < samples; ++s)
        sum = __dadd_rn(sum, __dmul_rn(utilities[s], (structures[s * d + i] != 0) - theta));
    const double push = __dmul_rn(__dmul_rn(penalty, theta), 1 - theta);
    const double step = __dmul_rn(eta, __dadd_rn(sum / samples, -push));
    const double low = 1.0 / d, high = 1 - low, value = __dadd_rn(theta, step);
    return value < low ? low : value > high ? high : value;
}

// The end of the method's part of an iteration: the mean loss of each structure, the ranking,
// equation (7), and where the training stands.  The structures that an iteration draws are taken
// from their stream here, when all is done with them; so are its examples.
//   row_losses: of each structure's examples, (samples, n); 0 of those without a class in t, which
//   the means leave out
extern "C" __global__ void selection(
    Progress *progress, const double *row_losses, const int *t, int samples, int n,
    const real *structures, int d,
    const double *penalty, double eta, const double *cumulative, int structure_rows,
    int augmentation_rows, int dropout_rows, double *losses, double *theta)
{
    __shared__ double means[MAX_SAMPLES], utilities[MAX_SAMPLES];
    for (int s = threadIdx.x; s < samples; s += blockDim.x) {
        double sum = 0;
        int count = 0;
        for (int j = 0; j < n; ++j) {
            sum += row_losses[s * n + j];
            count += t[j] != IGNORED;
        }
        means[s] = sum / (count > 1 ? count : 1);
    }
    __syncthreads();
    for (int s = threadIdx.x; s < samples; s += blockDim.x)
        utilities[s] = utility(means, samples, s, cumulative);
    __syncthreads();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < d)
        theta[i] = moved(theta[i], structures, d, i, utilities, samples, penalty[i], eta);
    if (i == 0) {
        double sum = 0;
        for (int s = 0; s < samples; ++s) {
            losses[s] = means[s];
            sum += means[s];
        }
        progress->loss += sum / samples;
        progress->losses += 1;
        progress->position += n;
        progress->structures += structure_rows;
        progress->augmentation += augmentation_rows;
        progress->dropout += dropout_rows;
    }
}
