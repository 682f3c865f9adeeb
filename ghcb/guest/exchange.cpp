#include "ghcb/guest/exchange.hpp"

#include "base/bytes.hpp"

namespace sevisor::ghcb::guest {

namespace {
template <class T>
T read_once(const T& shared) noexcept {
  return *const_cast<const volatile T*>(&shared);
}

constexpr std::uint64_t kStatusMask = 0xffffffff;
}  // namespace

std::optional<std::uint64_t> Reply::get(Field field) const noexcept {
  if (!valid.has(field)) return std::nullopt;
  switch (field) {
    case Field::kRax:
      return rax;
    case Field::kRbx:
      return rbx;
    case Field::kRcx:
      return rcx;
    case Field::kRdx:
      return rdx;
    default:
      return std::nullopt;
  }
}

Exchange::Exchange(Channel& channel, std::uint16_t version) noexcept : channel_(channel) {
  Page& page = channel_.page();
  __builtin_memset(&page, 0, offsetof(Page, reserved_408));
  page.version = version;
  page.usage = kUsageStandard;
}

void Exchange::set(Field field, std::uint64_t value) noexcept {
  auto* at = reinterpret_cast<std::uint8_t*>(&channel_.page()) + field_offset(field);
  if (field == Field::kCpl) {
    *at = static_cast<std::uint8_t>(value);
  } else {
    store<std::uint64_t>(at, value);
  }
  valid_.set(field);
}

void Exchange::use_shared_buffer() noexcept { set(Field::kScratch, channel_.page_address() + kSharedBufferOffset); }

Reply Exchange::call(ExitCode code, std::uint64_t info_1, std::uint64_t info_2) noexcept {
  set(Field::kExitCode, code);
  set(Field::kExitInfo1, info_1);
  set(Field::kExitInfo2, info_2);
  Page& page = channel_.page();
  page.valid = valid_;
  channel_.vmgexit();

  Reply reply;
  reply.valid.word[0] = read_once(page.valid.word[0]);
  reply.valid.word[1] = read_once(page.valid.word[1]);
  const std::uint64_t status = read_once(page.exit_info_1) & kStatusMask;
  reply.info_2 = read_once(page.exit_info_2);
  reply.rax = read_once(page.rax);
  reply.rbx = read_once(page.rbx);
  reply.rcx = read_once(page.rcx);
  reply.rdx = read_once(page.rdx);
  // Nothing valid stays behind: VMGEXIT from elsewhere must not repeat this request.
  page.valid.clear();

  if (!reply.valid.has(Field::kExitInfo1)) return reply;
  if (status == kResultSuccess) {
    reply.status = Reply::Status::kSuccess;
  } else if (status == kResultException && reply.valid.has(Field::kExitInfo2)) {
    reply.event = decode_event(reply.info_2);
    const bool allowed = reply.event.valid && reply.event.type == EventType::kException &&
                         (reply.event.vector == kVectorGp || reply.event.vector == kVectorUd);
    if (allowed) reply.status = Reply::Status::kException;
  } else if (status == kResultMalformed) {
    reply.status = Reply::Status::kMalformed;
  }
  return reply;
}

}  // namespace sevisor::ghcb::guest
