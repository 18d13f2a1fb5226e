// Blocks, warps and clusters, run on the machine's own threads. See cuda_runtime.h.

#include <sched.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace fastnorm::cuda {
thread_local uint4 held_memory[256 * 1024 / sizeof(uint4)];
}

namespace emulator {
namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "emulator: %s\n", what);
  std::abort();
}

struct Model {
  int processors, shared_bytes, cluster;
};

// Every model that was asked for is a device of its own: what a library remembers of one must not serve another.
std::vector<Model> models = {{132, 228 * 1024, 16}};
int current_model = 0;
enum Order { forward, backward, shuffled } order_of_turns = forward;

const Model& model() { return models[current_model]; }

// A barrier passes when all have arrived; `passed` counts how often.
struct Barrier {
  std::atomic<unsigned> arrived{0}, passed{0};

  void arrive(unsigned expected) {
    if (++arrived == expected) {
      arrived = 0;
      ++passed;
    }
  }
};

struct Cluster {
  unsigned blocks;
  Barrier barrier;
  std::vector<char*> memory;
  std::atomic<unsigned> started{0};
};

struct Warp {
  uint64_t numbers[32];
  Barrier barrier;
};

constexpr size_t stack_size = 128 * 1024;

struct Thread {
  ucontext_t context;
  void* stack;
  unsigned cluster_phase;
  bool done;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barrier, at_cluster;
  Cluster* cluster;
  const std::function<void()>* body;
  ucontext_t scheduler;
  unsigned current;
  bool moved;
};

thread_local Block block;
// Any thread-local variable of this library: the others lie at the same distance from it in every thread.
thread_local char anchor;

void yield() { swapcontext(&block.threads[block.current].context, &block.scheduler); }

void pass(Barrier& barrier, unsigned expected) {
  const unsigned phase = barrier.passed;
  barrier.arrive(expected);
  block.moved = true;
  while (barrier.passed == phase) yield();
  block.moved = true;
}

void enter() {
  (*block.body)();
  block.threads[block.current].done = true;
  block.moved = true;
  yield();
}

void prepare(unsigned threads) {
  block.threads.resize(threads);
  block.warps = std::vector<Warp>(threads / 32);
  for (Thread& thread : block.threads) {
    if (!thread.stack)
      thread.stack = mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack;
    thread.context.uc_stack.ss_size = stack_size;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter, 0);
  }
}

// Every thread of the block in turn, until all are done.
void run_block(unsigned index, const cudaLaunchConfig_t& config, Cluster& cluster, const std::function<void()>& body) {
  block.cluster = &cluster;
  block.body = &body;
  blockIdx = dim3(index);
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  prepare(blockDim.x);
  // What a block did not write itself is not a number.
  std::memset(fastnorm::cuda::held_memory, 0xff, config.dynamicSmemBytes);
  cluster.memory[index % cluster.blocks] = &anchor;
  for (++cluster.started; cluster.started < cluster.blocks;) sched_yield();

  std::vector<unsigned> order(blockDim.x);
  for (unsigned i = 0; i < blockDim.x; ++i) order[i] = order_of_turns == backward ? blockDim.x - 1 - i : i;
  std::mt19937 random(index);
  auto last_move = std::chrono::steady_clock::now();
  for (unsigned done = 0; done < blockDim.x;) {
    if (order_of_turns == shuffled) std::shuffle(order.begin(), order.end(), random);
    block.moved = false;
    done = 0;
    for (const unsigned thread : order) {
      if (!block.threads[thread].done) {
        block.current = thread;
        threadIdx = dim3(thread);
        swapcontext(&block.scheduler, &block.threads[thread].context);
      }
      done += block.threads[thread].done;
    }
    const auto now = std::chrono::steady_clock::now();
    if (block.moved) last_move = now;
    else if (cluster.blocks == 1 || now - last_move > std::chrono::seconds(60)) fail("threads wait for each other");
    else sched_yield();
  }
}

void release_stacks() {
  for (Thread& thread : block.threads) munmap(thread.stack, stack_size);
  block.threads.clear();
}

}  // namespace

int largest_cluster() { return model().cluster; }

uint64_t exchange(uint64_t number, unsigned lane) {
  Warp& warp = block.warps[threadIdx.x / 32];
  warp.numbers[threadIdx.x % 32] = number;
  pass(warp.barrier, 32);
  const uint64_t other = warp.numbers[lane];
  pass(warp.barrier, 32);
  return other;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& body) {
  const unsigned blocks = config.numAttrs ? config.attrs->val.clusterDim.x : 1;
  if (!config.gridDim.x || config.gridDim.x % blocks || config.blockDim.x % 32 || config.blockDim.x > 1024 ||
      static_cast<int>(blocks) > model().cluster || config.dynamicSmemBytes > size_t(model().shared_bytes) - 1024)
    return cudaErrorInvalidConfiguration;
  for (unsigned first = 0; first < config.gridDim.x; first += blocks) {
    Cluster cluster{blocks, {}, std::vector<char*>(blocks), {}};
    std::vector<std::thread> others;
    for (unsigned rank = 1; rank < blocks; ++rank)
      others.emplace_back([&, rank] {
        run_block(first + rank, config, cluster, body);
        release_stacks();
      });
    run_block(first, config, cluster, body);
    for (std::thread& other : others) other.join();
  }
  return cudaSuccess;
}

}  // namespace emulator

using emulator::block;

void __syncthreads() { emulator::pass(block.barrier, blockDim.x); }

unsigned __clusterSizeInBlocks() { return block.cluster->blocks; }

void __cluster_barrier_arrive() {
  emulator::Thread& thread = block.threads[block.current];
  thread.cluster_phase = block.cluster->barrier.passed;
  const unsigned before = block.at_cluster.passed;
  block.at_cluster.arrive(blockDim.x);
  if (block.at_cluster.passed != before) block.cluster->barrier.arrive(block.cluster->blocks);
  block.moved = true;
}

void __cluster_barrier_wait() {
  while (block.cluster->barrier.passed == block.threads[block.current].cluster_phase) emulator::yield();
  block.moved = true;
}

void* __cluster_map_shared_rank(const void* shared, unsigned rank) {
  return block.cluster->memory[rank] + (static_cast<const char*>(shared) - &emulator::anchor);
}

// The device from now on: its processors, bytes of shared memory on each, and largest cluster; and whose turn is next.
extern "C" __attribute__((visibility("default"))) void emulate(int processors, int shared_bytes, int cluster, int order) {
  emulator::models.push_back({processors, shared_bytes, cluster});
  emulator::current_model = static_cast<int>(emulator::models.size()) - 1;
  emulator::order_of_turns = static_cast<emulator::Order>(order);
}

cudaError_t cudaGetDevice(int* device) {
  *device = emulator::current_model;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = emulator::model().processors; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = emulator::model().shared_bytes; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = emulator::model().shared_bytes - 1024; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = 1024; break;
    case cudaDevAttrClusterLaunch: *value = emulator::model().cluster > 1; break;
  }
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : error == cudaErrorInvalidValue ? "invalid argument" : "invalid configuration";
}
