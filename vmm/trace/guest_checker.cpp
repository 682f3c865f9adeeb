#include "vmm/trace/guest_checker.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <set>
#include <tuple>
#include <utility>

#include "base/bytes.hpp"
#include "ghcb/exit_name.hpp"
#include "ghcb/ioio.hpp"

namespace sevisor::vmm {

namespace {

using ghcb::Field;

constexpr std::size_t kMostFindings = 400;  // different ones
constexpr std::size_t kMostOpenVcs = 16;    // those that never return are forgotten
constexpr std::size_t kWindow = 16;         // bytes of a secret that are looked for together
constexpr std::size_t kLeastValues = 6;     // different bytes in a window, else it is no secret but filling
constexpr std::uint64_t kMostDmaPages = 1 << 20;

struct Register {
  Field field;
  std::string_view name;
};
constexpr Register kRegisters[] = {
    {Field::kRax, "RAX"}, {Field::kRbx, "RBX"}, {Field::kRcx, "RCX"}, {Field::kRdx, "RDX"}, {Field::kRsi, "RSI"},
    {Field::kRdi, "RDI"}, {Field::kRbp, "RBP"}, {Field::kRsp, "RSP"}, {Field::kRip, "RIP"}, {Field::kR8, "R8"},
    {Field::kR9, "R9"},   {Field::kR10, "R10"}, {Field::kR11, "R11"}, {Field::kR12, "R12"}, {Field::kR13, "R13"},
    {Field::kR14, "R14"}, {Field::kR15, "R15"},
};
// Those of Register that an answer brings, by their place in VcpuState::given.
constexpr Field kGiven[] = {Field::kRax, Field::kRcx, Field::kRdx, Field::kRbx};

std::uint64_t page_of(std::uint64_t gpa) { return align_down(gpa, kPageSize); }

// Which bits of a register the request has to show; 0: none.
std::uint64_t needed_bits(const ghcb::Request& request, Field field) {
  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  constexpr std::uint64_t kHalf = 0xffffffff;
  switch (request.exit_code) {
    case ghcb::kExitCpuid:
      return field == Field::kRax || field == Field::kRcx ? kHalf : 0;
    case ghcb::kExitMsr:
      if (field == Field::kRcx) return kHalf;
      return request.exit_info_1 != 0 && (field == Field::kRax || field == Field::kRdx) ? kHalf : 0;
    case ghcb::kExitIoio: {
      const auto io = ghcb::decode_ioio(request.exit_info_1);
      if (!io || io->string || field != Field::kRax) return 0;
      // A short IN keeps the upper bytes, which go through the GHCB of guests that leave merging to the hypervisor.
      return io->in ? 0 : (std::uint64_t{1} << 8 * io->size) - 1;
    }
    case ghcb::kExitVmmcall:  // the hypercall's own affair
      return kAll;
    case ghcb::kExitWriteDr7:
      return field == Field::kRax ? kAll : 0;
    case ghcb::kExitRdpmc:
      return field == Field::kRcx ? kHalf : 0;
    case ghcb::kExitMonitor:
      return field == Field::kRax || field == Field::kRcx || field == Field::kRdx ? kAll : 0;
    case ghcb::kExitMwait:
      return field == Field::kRax || field == Field::kRcx ? kAll : 0;
    default:
      return 0;
  }
}

}  // namespace

void GuestChecker::add(std::string_view rule, const kvm::Moment& moment, std::uint64_t page, std::string detail) {
  const auto key = std::tuple(std::string(rule), moment.rip, detail);
  const auto found = findings_.find(key);
  if (found != findings_.end()) {
    ++found->second.count;
  } else if (findings_.size() < kMostFindings) {
    findings_[key] = {.rule = std::string(rule),
                      .detail = std::move(detail),
                      .rip = moment.rip,
                      .page = page,
                      .vcpu = moment.vcpu,
                      .count = 1};
  }
}

void GuestChecker::observe(const kvm::Moment& moment, const kvm::GuestEvent& event) {
  const std::lock_guard lock(mutex_);
  if (const auto* use = std::get_if<kvm::MemoryUse>(&event)) return memory_used(moment, *use);
  if (const auto* request = std::get_if<kvm::PageRequest>(&event)) return requested(moment, *request);
  if (const auto* reply = std::get_if<kvm::PageReply>(&event)) return answered(moment, *reply);
  if (const auto* secret = std::get_if<kvm::PrivateStore>(&event)) return remember_secret(secret->plain);
  if (const auto* vc = std::get_if<kvm::VcRaised>(&event)) {
    auto& vcs = vcpus_[moment.vcpu].vcs;
    if (vcs.size() == kMostOpenVcs) vcs.erase(vcs.begin());
    vcs.push_back({.page_busy = !vcs.empty() && vc->ghcb_busy});
  } else if (std::holds_alternative<kvm::VcDone>(event)) {
    auto& vcs = vcpus_[moment.vcpu].vcs;
    if (!vcs.empty()) vcs.pop_back();
  }
}

void GuestChecker::memory_used(const kvm::Moment& moment, const kvm::MemoryUse& use) {
  const std::uint64_t page = page_of(use.at.value);
  if (!use.has_memory) {
    if (!use.shared) add("mmio-private", moment, page, use.write ? "a write" : "a read");
    return;
  }
  const Use now = use.shared ? Use::kShared : Use::kPrivate;
  used_[page] = now;
  Use& written = written_[page];
  if (use.write) {
    written = now;
  } else if (written != Use::kNone && written != now) {
    add("c-bit-mismatch", moment, page,
        use.shared ? "a read with C=0 of what was written with C=1" : "a read with C=1 of what was written with C=0");
    written = now;  // once is enough
  }
  VcpuState& vcpu = vcpus_[moment.vcpu];
  if (use.shared && page == vcpu.page) page_touched(moment, use, vcpu);
}

void GuestChecker::page_touched(const kvm::Moment& moment, const kvm::MemoryUse& use, VcpuState& vcpu) {
  const std::uint64_t offset = use.at.offset_in_page();
  const auto touches = [&](std::size_t field) { return offset < field + 8 && field < offset + use.size; };
  if (!vcpu.vcs.empty()) {
    OpenVc& innermost = vcpu.vcs.back();
    if (!use.write && touches(ghcb::kValidBitmapOffset)) innermost.page_saved = true;
    if (use.write && innermost.page_busy && !innermost.page_saved) {
      add("ghcb-nested", moment, vcpu.page, "the outer #VC's request or answer is lost");
      innermost.page_saved = true;
    }
  }
  // A copy of the whole page, such as a nested #VC makes, is no use of an answer.
  if (use.write || !vcpu.answered || use.size > 16) return;
  if (touches(ghcb::kValidBitmapOffset) || touches(ghcb::kValidBitmapOffset + 8)) vcpu.bitmap_read = true;
  if (touches(offsetof(ghcb::Page, exit_info_1))) vcpu.info_read = true;
  for (const Register& reg : kRegisters) {
    if (!touches(ghcb::field_offset(reg.field))) continue;
    if (std::find(std::begin(kGiven), std::end(kGiven), reg.field) == std::end(kGiven)) {
      add("reply-unmarked", moment, vcpu.page, fmt::format("{} is read", reg.name));
    } else if (!vcpu.info_read) {
      add("reply-unchecked", moment, vcpu.page, fmt::format("{} is read before exit_info_1", reg.name));
    } else if (!vcpu.bitmap_read) {
      add("reply-unchecked", moment, vcpu.page, fmt::format("{} is read before its valid bit", reg.name));
    }
  }
}

void GuestChecker::requested(const kvm::Moment& moment, const kvm::PageRequest& request) {
  VcpuState& vcpu = vcpus_[moment.vcpu];
  vcpu.page = request.page.value;
  vcpu.answered = vcpu.bitmap_read = vcpu.info_read = false;
  if (request.snapshot == nullptr) return;
  const auto* bytes = reinterpret_cast<const std::byte*>(request.snapshot);
  for (const Register& reg : kRegisters) {
    const auto value = load<std::uint64_t>(bytes + ghcb::field_offset(reg.field));
    const auto* given = std::find(std::begin(kGiven), std::end(kGiven), reg.field);
    if (given != std::end(kGiven) && value == vcpu.given[static_cast<std::size_t>(given - kGiven)]) continue;
    const std::uint64_t needed = needed_bits(request.request, reg.field);
    if ((value & ~needed) == 0) continue;
    add("register-exposed", moment, request.page.value,
        fmt::format("{}{} with {}", needed != 0 ? "upper bytes of " : "", reg.name,
                    ghcb::exit_name(request.request.exit_code)));
  }
  if (has_secret({bytes, ghcb::kPageBytes})) {
    add("secret-shared", moment, request.page.value, "in the GHCB");
  }
}

void GuestChecker::answered(const kvm::Moment& moment, const kvm::PageReply& reply) {
  VcpuState& vcpu = vcpus_[moment.vcpu];
  vcpu.answered = true;
  vcpu.bitmap_read = vcpu.info_read = false;
  vcpu.given = {reply.request.rax, reply.request.rcx, reply.request.rdx, reply.request.rbx};
  if (!reply.data.empty() && reply.request.scratch != 0) {
    written_[page_of(reply.request.scratch)] = Use::kShared;
    if (has_secret(reply.data)) {
      add("secret-shared", moment, page_of(reply.request.scratch),
          fmt::format("handed out with {}", ghcb::exit_name(reply.request.exit_code)));
    }
  }
}

void GuestChecker::device_access(Gpa at, std::size_t size, bool write) {
  if (size == 0) return;
  const std::lock_guard lock(mutex_);
  const std::uint64_t first = page_of(at.value);
  const std::uint64_t pages = std::min((size - 1 + (at.value - first)) / kPageSize + 1, kMostDmaPages);
  for (std::uint64_t i = 0; i < pages; ++i) {
    const std::uint64_t page = first + i * kPageSize;
    const auto found = used_.find(page);
    if (found != used_.end() && found->second == Use::kPrivate) {
      add("dma-private", {}, page, write ? "a device writes" : "a device reads");
    }
    if (write) written_[page] = Use::kShared;
  }
}

void GuestChecker::remember_secret(std::span<const std::byte> plain) {
  for (std::size_t at = 0; at + kWindow <= plain.size(); ++at) {
    const auto window = plain.subspan(at, kWindow);
    if (std::set<std::byte>(window.begin(), window.end()).size() < kLeastValues) continue;
    secret_windows_.emplace(reinterpret_cast<const char*>(window.data()), kWindow);
  }
}

bool GuestChecker::has_secret(std::span<const std::byte> bytes) const {
  if (secret_windows_.empty()) return false;
  std::string window(kWindow, '\0');
  for (std::size_t at = 0; at + kWindow <= bytes.size(); ++at) {
    std::memcpy(window.data(), &bytes[at], kWindow);
    if (secret_windows_.contains(window)) return true;
  }
  return false;
}

void GuestChecker::look_for_secrets(devices::GuestDma& memory) {
  const std::lock_guard lock(mutex_);
  if (secret_windows_.empty()) return;
  std::array<std::byte, kPageSize> bytes{};
  for (const auto& [page, use] : used_) {
    if (use == Use::kShared && memory.read(Gpa(page), bytes) && has_secret(bytes)) {
      add("secret-shared", {}, page, "found when the guest had stopped");
    }
  }
}

std::vector<Finding> GuestChecker::findings() const {
  const std::lock_guard lock(mutex_);
  std::vector<Finding> all;
  for (const CheckRule& rule : kCheckRules) {
    for (const auto& [key, finding] : findings_) {
      if (finding.rule == rule.name) all.push_back(finding);
    }
  }
  return all;
}

}  // namespace sevisor::vmm
