#include "ghcb/hypervisor/service.hpp"

#include <algorithm>
#include <climits>
#include <utility>

#include "base/bytes.hpp"
#include "ghcb/ioio.hpp"
#include "ghcb/msr_protocol.hpp"

namespace sevisor::ghcb {

namespace {

// GHCB MSR requests that only an SNP guest may make: KVM ends an SEV-ES guest that does.
constexpr std::uint64_t kSnpPreferredGhcb = 0x010;
constexpr std::uint64_t kSnpRegisterGhcb = 0x012;
constexpr std::uint64_t kSnpPageState = 0x014;

// exit_info_1 of event 0x80000005.
constexpr std::uint64_t kSetJumpTable = 0;
constexpr std::uint64_t kGetJumpTable = 1;

// Hypervisor features: KVM's GHCB_HV_FT_SUPPORTED, SNP and AP creation, told to every guest.
constexpr std::uint64_t kFeatures = 3;

// The bits of an IOIO request that KVM looks at.
constexpr std::uint64_t kIoSizeMask = std::uint64_t{7} << kIoSizeShift;
constexpr std::uint64_t kIoUsedMask = std::uint64_t{0xffff} << kIoPortShift | kIoSizeMask | kIoRep | kIoString | kIoIn;

constexpr std::size_t kMmioChunk = 8;
constexpr std::uint64_t kMmioLimitOfVersion2 = 8;

std::uint64_t low_half(std::uint64_t value) { return value & 0xffffffff; }

}  // namespace

Service::Service(const ServiceConfig& config, Environment& environment) : config_(config), environment_(environment) {}

void Service::take_over(const Service& other) {
  config_ = other.config_;
  page_ = other.page_;
  snapshot_ = other.snapshot_;
  request_ = other.request_;
  result_1_ = other.result_1_;
  result_2_ = other.result_2_;
  const bool held = other.pending_ == Pending::kPageHold || other.pending_ == Pending::kMsrHold;
  pending_ = held ? other.pending_ : Pending::kNone;
}

std::uint64_t Service::initial_msr() const noexcept {
  return msr::encode(msr::SevInfo{.max_version = config_.max_version,
                                  .min_version = config_.min_version,
                                  .c_bit = static_cast<std::uint8_t>(config_.c_bit)});
}

Outcome Service::vmgexit() {
  pending_ = Pending::kNone;
  const std::uint64_t value = environment_.ghcb_msr();
  if (msr::info(value) != msr::kGhcbPage) return msr_request(value);
  page_ = Gpa(value);
  // KVM resumes a guest whose GHCB it cannot map; nothing can be told to it.
  if (value == 0) return Resume{};
  if (!environment_.read_shared(page_, std::as_writable_bytes(std::span(&snapshot_, 1)))) {
    environment_.page_requested(page_, nullptr, snapshot_);
    return Resume{};
  }
  request_ = read_request(snapshot_);
  environment_.page_requested(page_, &request_, snapshot_);
  const ValidBitmap none{};
  (void)environment_.write_shared(page_ + offsetof(Page, valid), std::as_bytes(std::span(&none, 1)));
  result_1_ = kResultSuccess;
  result_2_ = 0;
  copy_back_ = false;
  buffer_.clear();
  const Verdict verdict = validate(request_, config_.known);
  if (verdict.error) return refuse(*verdict.error);
  return act(verdict.action);
}

void Service::answer_msr(std::uint64_t value) {
  environment_.set_ghcb_msr(value);
  environment_.msr_answered(value);
}

Outcome Service::msr_request(std::uint64_t value) {
  environment_.msr_requested(value);
  const std::uint64_t kind = msr::info(value);
  const bool later = kind == msr::kApResetHoldRequest || kind == msr::kFeaturesRequest;
  if (later && config_.known == KnownRequests::kLinux61) return Resume{};  // as any that is not known
  switch (kind) {
    case msr::kSevInfoRequest:
      answer_msr(initial_msr());
      return Resume{};
    case msr::kCpuidRequest: {
      const auto leaf = static_cast<std::uint32_t>(value >> 32);
      const auto reg = static_cast<msr::CpuidRegister>(value >> 30 & 3);
      const CpuidValues values = environment_.cpuid(leaf, 0, std::nullopt);
      const std::uint32_t registers[] = {values.eax, values.ebx, values.ecx, values.edx};
      // Reserved bits stay as the guest sent them.
      const std::uint64_t reserved = value & 0x3ffff000;
      answer_msr(msr::encode_cpuid_response(registers[static_cast<unsigned>(reg)], reg) | reserved);
      return Resume{};
    }
    case msr::kApResetHoldRequest:
      pending_ = Pending::kMsrHold;
      return Held{};
    case msr::kFeaturesRequest:
      answer_msr(msr::encode_features_response(kFeatures));
      return Resume{};
    case msr::kTerminateRequest:
    case kSnpPreferredGhcb:
    case kSnpRegisterGhcb:
    case kSnpPageState:
      return Terminated{value};
    default:
      return Resume{};  // the MSR stays: the guest finds its own request instead of a response
  }
}

Outcome Service::act(Action action) {
  switch (action) {
    case Action::kNothing:
      break;
    case Action::kCpuid: {
      const auto xcr0 = request_.valid.has(Field::kXcr0) ? std::optional(request_.xcr0) : std::nullopt;
      const CpuidValues values =
          environment_.cpuid(static_cast<std::uint32_t>(request_.rax), static_cast<std::uint32_t>(request_.rcx), xcr0);
      request_.rax = values.eax;
      request_.rbx = values.ebx;
      request_.rcx = values.ecx;
      request_.rdx = values.edx;
      break;
    }
    case Action::kMsr:
      return start_msr();
    case Action::kVmmcall:
      return start_hypercall();
    case Action::kInjectGp:
      environment_.inject_exception(kVectorGp, 0);
      break;
    case Action::kInjectUd:
      environment_.inject_exception(kVectorUd, std::nullopt);
      break;
    case Action::kPort:
      return start_port();
    case Action::kMmioRead:
      return start_mmio(false);
    case Action::kMmioWrite:
      return start_mmio(true);
    case Action::kNmiComplete:
      environment_.nmi_complete();
      break;
    case Action::kApResetHold:
      pending_ = Pending::kPageHold;
      return Held{};
    case Action::kApJumpTable:
      if (request_.exit_info_1 == kSetJumpTable) {
        environment_.set_ap_jump_table(request_.exit_info_2);
      } else if (request_.exit_info_1 == kGetJumpTable) {
        result_2_ = environment_.ap_jump_table();
      } else {
        return refuse(InputError::kInvalidInput);
      }
      break;
    case Action::kFeatures:
      result_2_ = kFeatures;
      break;
    case Action::kTerminate:
      return Terminated{environment_.ghcb_msr()};
    case Action::kUnexpected:
      return Failed{RunFailure::kUnexpectedExit, request_.exit_code};
    case Action::kUnsupported:
      return Failed{RunFailure::kInvalid, request_.exit_code};
  }
  return finish();
}

Outcome Service::start_msr() {
  MsrExit access{.index = static_cast<std::uint32_t>(request_.rcx), .write = request_.exit_info_1 != 0};
  if (access.write) {
    access.value = request_.rdx << 32 | low_half(request_.rax);
    if (environment_.write_msr(access.index, access.value)) return finish();
  } else if (const auto value = environment_.read_msr(access.index)) {
    give_msr(*value);
    return finish();
  }
  if (environment_.refused_msr_exits()) {
    pending_ = Pending::kMsr;
    return access;
  }
  raise(kVectorGp);
  return finish();
}

void Service::give_msr(std::uint64_t value) {
  request_.rax = low_half(value);
  request_.rdx = value >> 32;
}

Outcome Service::complete_msr(std::optional<std::uint64_t> value) {
  if (std::exchange(pending_, Pending::kNone) != Pending::kMsr) return Resume{};
  if (!value) {
    raise(kVectorGp);
  } else if (request_.exit_info_1 == 0) {
    give_msr(*value);
  }
  return finish();
}

Outcome Service::start_hypercall() {
  const Hypercall call{.rax = request_.rax,
                       .rbx = request_.rbx,
                       .rcx = request_.rcx,
                       .rdx = request_.rdx,
                       .rsi = request_.rsi,
                       .cpl = request_.cpl};
  if (environment_.hypercall_exits(call)) {
    pending_ = Pending::kHypercall;
    return HypercallExit{call};
  }
  request_.rax = environment_.hypercall(call);
  return finish();
}

Outcome Service::complete_hypercall(std::uint64_t rax) {
  if (std::exchange(pending_, Pending::kNone) != Pending::kHypercall) return Resume{};
  request_.rax = rax;
  return finish();
}

bool Service::take_scratch(std::size_t size, Outcome& otherwise) {
  const std::uint64_t begin = request_.scratch;
  const std::uint64_t end = begin + size;
  buffer_.clear();
  if (begin == 0 || end < begin) {
    otherwise = refuse(InputError::kInvalidScratch);
    return false;
  }
  if (Gpa(begin).page() == page_) {
    const std::uint64_t first = page_.value + kSharedBufferOffset;
    if (begin < first || end > first + kSharedBufferBytes) {
      otherwise = refuse(InputError::kInvalidScratch);
      return false;
    }
    const std::uint8_t* from = snapshot_.shared_buffer + (begin - first);
    const auto* bytes = reinterpret_cast<const std::byte*>(from);
    buffer_.assign(bytes, bytes + size);
    return true;
  }
  // From version 2 on the scratch area lies within the GHCB.
  if (config_.max_version >= 2 || size > kScratchLimit) {
    otherwise = refuse(InputError::kInvalidScratch);
    return false;
  }
  buffer_.resize(size);
  if (!environment_.read_shared(Gpa(begin), buffer_)) {
    otherwise = Failed{RunFailure::kFault, request_.exit_code};
    return false;
  }
  return true;
}

Outcome Service::start_port() {
  if ((request_.exit_info_1 & kIoSizeMask) == 0) return finish();
  const auto access = decode_ioio(request_.exit_info_1 & kIoUsedMask);
  if (!access) return refuse(InputError::kInvalidInput);
  port_ = {.port = access->port, .in = access->in, .size = access->size, .count = 1, .data = {}};
  if (access->string) {
    const std::uint64_t count = request_.exit_info_2;
    if (count > INT_MAX || count * access->size > INT_MAX) return Failed{RunFailure::kInvalid, request_.exit_code};
    if (count == 0) return finish();
    Outcome otherwise;
    if (!take_scratch(count * access->size, otherwise)) return otherwise;
    copy_back_ = access->in;
  } else {
    buffer_.resize(access->size);
    std::copy_n(reinterpret_cast<const std::byte*>(&request_.rax), access->size, buffer_.begin());
  }
  port_.data = buffer_;
  return continue_port();
}

// port_.data is what is left to do.
Outcome Service::continue_port() {
  while (!port_.data.empty()) {
    chunk_ = std::min(port_.data.size(), kPortChunk);
    PortAccess part = port_;
    part.data = port_.data.first(chunk_);
    part.count = static_cast<std::uint32_t>(chunk_ / port_.size);
    if (!environment_.port(part)) {
      pending_ = Pending::kPort;
      return PortExit{part};
    }
    port_.data = port_.data.subspan(chunk_);
  }
  const bool string = (request_.exit_info_1 & kIoString) != 0;
  if (port_.in && !string) {
    // A 32-bit IN clears the upper half of RAX, a shorter one leaves what the guest sent.
    if (port_.size == 4) request_.rax = 0;
    std::copy(buffer_.begin(), buffer_.end(), reinterpret_cast<std::byte*>(&request_.rax));
  }
  return finish();
}

Outcome Service::start_mmio(bool write) {
  const std::uint64_t size = request_.exit_info_2;
  if (size == 0) return finish();
  if (config_.max_version >= 2 && size > kMmioLimitOfVersion2) return refuse(InputError::kInvalidInput);
  if (size > INT_MAX) return refuse(InputError::kInvalidScratch);
  Outcome otherwise;
  if (!take_scratch(size, otherwise)) return otherwise;
  copy_back_ = !write;
  mmio_ = {.gpa = Gpa(request_.exit_info_1), .write = write, .data = buffer_};
  return continue_mmio();
}

Outcome Service::continue_mmio() {
  while (!mmio_.data.empty()) {
    chunk_ = std::min(mmio_.data.size(), kMmioChunk);
    const MmioAccess part{.gpa = mmio_.gpa, .write = mmio_.write, .data = mmio_.data.first(chunk_)};
    if (!environment_.mmio(part)) {
      pending_ = Pending::kMmio;
      return MmioExit{part};
    }
    mmio_.gpa = mmio_.gpa + chunk_;
    mmio_.data = mmio_.data.subspan(chunk_);
  }
  return finish();
}

Outcome Service::complete() {
  switch (std::exchange(pending_, Pending::kNone)) {
    case Pending::kPort:
      port_.data = port_.data.subspan(chunk_);
      return continue_port();
    case Pending::kMmio:
      mmio_.gpa = mmio_.gpa + chunk_;
      mmio_.data = mmio_.data.subspan(chunk_);
      return continue_mmio();
    case Pending::kMsr:
    case Pending::kHypercall:
    case Pending::kPageHold:
    case Pending::kMsrHold:
    case Pending::kNone:
      break;
  }
  return Resume{};
}

void Service::finish_hold(bool sipi) {
  const Pending pending = std::exchange(pending_, Pending::kNone);
  if (pending == Pending::kMsrHold) {
    answer_msr(msr::encode_ap_reset_hold_response(sipi));
  } else if (pending == Pending::kPageHold) {
    result_2_ = sipi ? 1 : 0;
    finish();
  }
}

void Service::raise(std::uint8_t vector) {
  // KVM gives #GP without an error code; the guest supplies 0.
  result_1_ = kResultException;
  result_2_ = encode(Event{.vector = vector, .type = EventType::kException});
}

Outcome Service::refuse(InputError error) {
  result_1_ = kResultMalformed;
  result_2_ = static_cast<std::uint64_t>(error);
  copy_back_ = false;
  return finish();
}

Outcome Service::finish() {
  // A page that has vanished meanwhile is the guest's loss: there is nobody to tell.
  const auto put = [this](std::size_t offset, const auto& value) {
    (void)environment_.write_shared(page_ + offset, std::as_bytes(std::span(&value, 1)));
  };
  if (copy_back_ && !buffer_.empty()) (void)environment_.write_shared(Gpa(request_.scratch), buffer_);
  put(offsetof(Page, rax), request_.rax);
  const std::uint64_t registers[] = {request_.rcx, request_.rdx, request_.rbx};
  put(offsetof(Page, rcx), registers);
  const std::uint64_t results[] = {result_1_, result_2_};
  put(offsetof(Page, exit_info_1), results);
  ValidBitmap valid{};
  for (Field field : {Field::kRax, Field::kRcx, Field::kRdx, Field::kRbx, Field::kExitInfo1, Field::kExitInfo2}) {
    valid.set(field);
  }
  put(offsetof(Page, valid), valid);
  environment_.page_answered(
      {.page = page_, .request = request_, .exit_info_1 = result_1_, .exit_info_2 = result_2_, .data = buffer_});
  return Resume{};
}

}  // namespace sevisor::ghcb
