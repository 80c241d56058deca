// CUDA's dialect for a host's C++ compiler, one thread after the other.
//
// Blocks run in turn; the threads of a block are coroutines that change places at barriers and
// shuffles.  The order in which they run is an argument: kernels whose results depend on it lack a
// barrier.  A barrier that some threads of a block never reach ends the process with a message, as
// it would hang a GPU.

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

struct dim3 {
    unsigned x, y, z;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

namespace emulator {

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

// A thread of a block: a stack of its own, entered once and used for one block after the other.
struct Fiber {
    ucontext_t start;
    jmp_buf place;
    std::vector<char> stack;
    dim3 index;
    State state;
};

static std::vector<Fiber *> fibers;
static jmp_buf scheduler;
static unsigned current;
static uint64_t slots[1024];
static void (*body)(void **);
static void **body_arguments;

// Go back to the scheduler, until it resumes this thread.  Unlike swapcontext, no system call.
static void wait(State state)
{
    Fiber *fiber = fibers[current];
    fiber->state = state;
    if (!_setjmp(fiber->place))
        _longjmp(scheduler, 1);
}

static void entry()
{
    for (;;) {
        body(body_arguments);
        wait(DONE);
    }
}

static void resume(unsigned i)
{
    current = i;
    threadIdx = fibers[i]->index;
    if (_setjmp(scheduler))
        return;
    if (fibers[i]->stack.empty()) {
        fibers[i]->stack.resize(1 << 16);
        getcontext(&fibers[i]->start);
        fibers[i]->start.uc_stack.ss_sp = fibers[i]->stack.data();
        fibers[i]->start.uc_stack.ss_size = fibers[i]->stack.size();
        makecontext(&fibers[i]->start, entry, 0);
        setcontext(&fibers[i]->start);
    }
    _longjmp(fibers[i]->place, 1);
}

// Let the threads first..last go on if all that are left wait at the same barrier.
static bool release(unsigned first, unsigned last, State barrier)
{
    bool some = false;
    for (unsigned i = first; i < last; ++i) {
        if (fibers[i]->state != barrier && fibers[i]->state != DONE)
            return false;
        some |= fibers[i]->state == barrier;
    }
    for (unsigned i = first; i < last; ++i)
        if (fibers[i]->state == barrier)
            fibers[i]->state = READY;
    return some;
}

static void run_block(unsigned threads, int order)
{
    while (fibers.size() < threads)
        fibers.push_back(new Fiber);
    for (unsigned i = 0; i < threads; ++i) {
        fibers[i]->index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        fibers[i]->state = READY;
    }
    for (;;) {
        bool progress = false, done = true;
        for (unsigned i = 0; i < threads; ++i) {
            const unsigned thread = order ? threads - 1 - i : i;
            if (fibers[thread]->state == READY) {
                resume(thread);
                progress = true;
            }
            done &= fibers[thread]->state == DONE;
        }
        if (done)
            return;
        for (unsigned first = 0; first < threads; first += 32)
            progress |= release(first, first + 32 < threads ? first + 32 : threads, AT_WARP_BARRIER);
        progress |= release(0, threads, AT_BLOCK_BARRIER);
        if (!progress) {
            fprintf(stderr, "a barrier that not all threads reach\n");
            abort();
        }
    }
}

static void launch(void (*kernel)(void **), const unsigned *grid, const unsigned *block,
                   void **arguments, int order)
{
    body = kernel;
    body_arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                run_block(block[0] * block[1] * block[2], order);
            }
}

}  // namespace emulator

static void __syncthreads()
{
    emulator::wait(emulator::AT_BLOCK_BARRIER);
}

template <class T> static T __shfl_down_sync(unsigned, T value, int distance)
{
    const unsigned own = emulator::current, other = own + distance;
    memcpy(&emulator::slots[own], &value, sizeof value);
    emulator::wait(emulator::AT_WARP_BARRIER);
    if (other / 32 == own / 32 && other < blockDim.x * blockDim.y * blockDim.z)
        memcpy(&value, &emulator::slots[other], sizeof value);
    emulator::wait(emulator::AT_WARP_BARRIER);
    return value;
}

static double __dadd_rn(double a, double b) { return a + b; }
static double __dmul_rn(double a, double b) { return a * b; }
using std::exp;
using std::isnan;
using std::log;
using std::sqrt;
