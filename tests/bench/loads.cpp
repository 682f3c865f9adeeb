// What the benchmark guest runs beside busybox; built static, for any x86-64. Each load prints a result, so that the
// compiler keeps the work and a wrong processor shows.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

std::uint64_t next(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// A compiler's habits: small nodes all over the memory, compared and linked anew. An unbalanced search tree.
int pointers() {
  struct Node {
    std::uint64_t key;
    Node* child[2];
  };
  constexpr unsigned kNodes = 200'000;
  constexpr unsigned kLookups = 1'000'000;
  std::vector<Node> pool(kNodes);
  Node* root = nullptr;
  std::uint64_t state = 88172645463325252ULL;
  for (Node& node : pool) {
    node = {next(state), {nullptr, nullptr}};
    Node** at = &root;
    while (*at != nullptr) at = &(*at)->child[node.key > (*at)->key ? 1 : 0];
    *at = &node;
  }
  std::uint64_t depth = 0;
  for (unsigned n = 0; n < kLookups; ++n) {
    const std::uint64_t key = next(state);
    for (const Node* at = root; at != nullptr; at = at->child[key > at->key ? 1 : 0]) ++depth;
  }
  std::printf("depth %llu\n", static_cast<unsigned long long>(depth));
  return 0;
}

// Double precision: the n-body problem's kernel.
int floats() {
  constexpr unsigned kBodies = 8;
  constexpr unsigned kSteps = 60'000;
  double x[kBodies][3];
  double v[kBodies][3] = {};
  for (unsigned i = 0; i < kBodies; ++i) {
    for (unsigned d = 0; d < 3; ++d) x[i][d] = std::sin(1.0 + i * 3 + d) * 10;
  }
  constexpr double kStep = 1e-4;
  for (unsigned step = 0; step < kSteps; ++step) {
    for (unsigned i = 0; i < kBodies; ++i) {
      for (unsigned j = i + 1; j < kBodies; ++j) {
        double r[3];
        double square = 0.01;
        for (unsigned d = 0; d < 3; ++d) r[d] = x[i][d] - x[j][d], square += r[d] * r[d];
        const double pull = kStep / (square * std::sqrt(square));
        for (unsigned d = 0; d < 3; ++d) v[i][d] -= r[d] * pull, v[j][d] += r[d] * pull;
      }
    }
    for (unsigned i = 0; i < kBodies; ++i) {
      for (unsigned d = 0; d < 3; ++d) x[i][d] += v[i][d] * kStep;
    }
  }
  std::printf("at %.12f\n", x[0][0]);
  return 0;
}

// Extended precision, which compilers put on the x87 stack: Julia sets, and conversions to integers with their changes
// of the control word.
int x87() {
  constexpr int kSide = 320;
  constexpr int kMostSteps = 60;
  long double checksum = 0;
  unsigned long steps = 0;
  for (int row = 0; row < kSide; ++row) {
    for (int column = 0; column < kSide; ++column) {
      long double x = (column - kSide / 2) * 3.0L / kSide;
      long double y = (row - kSide / 2) * 3.0L / kSide;
      int n = 0;
      for (; n < kMostSteps && x * x + y * y < 4; ++n) {
        const long double next_x = x * x - y * y - 0.8L;
        y = 2 * x * y + 0.156L;
        x = next_x;
      }
      steps += static_cast<unsigned long>(n);
      checksum += static_cast<long>(x * 1000) + y;
    }
  }
  std::printf("steps %lu, %.12Lf\n", steps, checksum);
  return 0;
}

// 500 processes, one after another, each this program again.
int processes(char* self) {
  constexpr unsigned kProcesses = 500;
  unsigned good = 0;
  char nothing[] = "nothing";
  char* arguments[] = {self, nothing, nullptr};
  for (unsigned n = 0; n < kProcesses; ++n) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::execv(self, arguments);
      ::_exit(1);
    }
    int status = 1;
    if (child > 0 && ::waitpid(child, &status, 0) == child && status == 0) ++good;
  }
  std::printf("%u processes\n", good);
  return good == kProcesses ? 0 : 1;
}

// 16 MiB of words for gzip, on standard output.
int text() {
  constexpr std::size_t kSize = 16U << 20;
  static const char* const kWords[] = {"guest", "page", "host", "key", "the", "of", "measure", "launch", "exit", "a"};
  std::uint64_t state = 1;
  std::string out;
  out.reserve(kSize + 32);
  while (out.size() < kSize) {
    out += kWords[next(state) % 10];
    out += next(state) % 9 == 0 ? std::to_string(next(state) % 1000) + "\n" : " ";
  }
  return std::fwrite(out.data(), 1, kSize, stdout) == kSize ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string load = argc > 1 ? argv[1] : "";
  if (load == "nothing") return 0;
  if (load == "pointers") return pointers();
  if (load == "floats") return floats();
  if (load == "x87") return x87();
  if (load == "processes") return processes(argv[0]);
  if (load == "text") return text();
  std::fputs("loads: pointers, floats, x87, processes, text or nothing\n", stderr);
  return 2;
}
