// Descriptors and segment registers (APM vol. 2 chapter 4), and the stacks that system instructions push to.
#include <bit>

#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint16_t kFlatCode = kSegPresent | kSegS | kTypeCode | kTypeWritable | kTypeAccessed | kSegGranularity;
constexpr std::uint16_t kFlatData = kSegPresent | kSegS | kTypeWritable | kTypeAccessed | kSegGranularity | kSegDefault;

std::uint16_t with_dpl(std::uint16_t attributes, unsigned dpl) {
  return static_cast<std::uint16_t>(attributes | dpl << 5);
}

}  // namespace

bool within_table(const Core& core, std::uint16_t selector) noexcept {
  const bool local = (selector & kSelectorLocal) != 0;
  if (local && (core.ldtr.attributes & kSegPresent) == 0) return false;
  return (selector & kSelectorIndex) + 7U <= (local ? core.ldtr : core.gdtr).limit;
}

bool read_descriptor(Core& core, std::uint16_t selector, Descriptor& out, std::uint8_t vector,
                     std::uint32_t ext) noexcept {
  if (!within_table(core, selector)) return core.raise(vector, selector_error(selector, ext));
  const bool local = (selector & kSelectorLocal) != 0;
  out.va = (local ? core.ldtr : core.gdtr).base + (selector & kSelectorIndex);
  return core.read_system(out.va, &out.raw, sizeof out.raw);
}

bool read_upper(Core& core, const Descriptor& descriptor, std::uint16_t selector, std::uint64_t& out,
                std::uint8_t vector) noexcept {
  const bool local = (selector & kSelectorLocal) != 0;
  if ((selector & kSelectorIndex) + 15U > (local ? core.ldtr : core.gdtr).limit) {
    return core.raise(vector, selector_error(selector));
  }
  return core.read_system(descriptor.va + 8, &out, sizeof out);
}

bool mark_accessed(Core& core, Descriptor& descriptor) noexcept {
  constexpr std::uint64_t kAccessedBit = std::uint64_t{kTypeAccessed} << 40;
  if ((descriptor.raw & kAccessedBit) != 0) return true;
  descriptor.raw |= kAccessedBit;
  const auto type_byte = static_cast<std::uint8_t>(descriptor.raw >> 40);
  return core.write_system(descriptor.va + 5, &type_byte, 1);
}

void set_segment(Core& core, SegmentRegister s, std::uint16_t selector, const Descriptor& descriptor) noexcept {
  core.seg[s] = Segment{.selector = selector, .attributes = descriptor.attributes(), .limit = descriptor.limit()};
  core.segment_base(s) = descriptor.base();
}

void set_null_segment(Core& core, SegmentRegister s, std::uint16_t selector) noexcept {
  core.seg[s] = Segment{.selector = selector, .attributes = 0, .limit = 0};
  core.segment_base(s) = 0;
}

void set_real_mode_segment(Core& core, SegmentRegister s, std::uint16_t selector) noexcept {
  Segment& segment = core.seg[s];
  segment.selector = selector;
  // Limit and default size stay as protected mode left them. A null segment becomes usable again.
  if ((segment.attributes & kSegPresent) == 0) {
    segment.attributes = kSegPresent | kSegS | kTypeWritable | kTypeAccessed;
    segment.limit = 0xffff;
  }
  core.segment_base(s) = std::uint64_t{selector} << 4;
}

void set_flat_code(Core& core, std::uint16_t selector, unsigned dpl, bool long_code) noexcept {
  const std::uint16_t size = long_code ? kSegLong : kSegDefault;
  core.seg[kCs] = Segment{.selector = selector,
                          .attributes = with_dpl(static_cast<std::uint16_t>(kFlatCode | size), dpl),
                          .limit = 0xffff'ffff};
  core.segment_base(kCs) = 0;
}

void set_flat_stack(Core& core, std::uint16_t selector, unsigned dpl) noexcept {
  core.seg[kSs] = Segment{.selector = selector, .attributes = with_dpl(kFlatData, dpl), .limit = 0xffff'ffff};
  core.segment_base(kSs) = 0;
}

void set_code_segment(Core& core, std::uint16_t selector, unsigned cpl, const Descriptor& descriptor) noexcept {
  set_segment(core, kCs, static_cast<std::uint16_t>((selector & kSelectorError) | cpl), descriptor);
  core.cpl = static_cast<std::uint8_t>(cpl);
}

bool check_stack_segment(Core& core, std::uint16_t selector, unsigned cpl, std::uint8_t vector, std::uint32_t ext,
                         Descriptor& out) noexcept {
  if (null_selector(selector)) return core.raise(vector, ext);
  if (!read_descriptor(core, selector, out, vector, ext)) return false;
  if ((selector & kSelectorRpl) != cpl || !out.writable_data() || out.dpl() != cpl) {
    return core.raise(vector, selector_error(selector, ext));
  }
  if (!out.present()) return core.raise(kVectorSs, selector_error(selector, ext));
  return mark_accessed(core, out);
}

bool load_segment(Core& core, SegmentRegister s, std::uint16_t selector) noexcept {
  if (!protected_mode(core)) {
    set_real_mode_segment(core, s, selector);
    return true;
  }
  const unsigned rpl = selector & kSelectorRpl;
  Descriptor d;
  if (s == kSs) {
    if (null_selector(selector) && core.code64 && core.cpl != 3 && rpl == core.cpl) {
      set_null_segment(core, kSs, selector);
      return true;
    }
    if (!check_stack_segment(core, selector, core.cpl, kVectorGp, 0, d)) return false;
    set_segment(core, kSs, selector, d);
    return true;
  }
  if (null_selector(selector)) {
    set_null_segment(core, s, selector);
    return true;
  }
  if (!read_descriptor(core, selector, d)) return false;
  const bool readable = !d.system() && (!d.code() || (d.type() & kTypeWritable) != 0);
  const bool privileged = !d.conforming() && (rpl > d.dpl() || core.cpl > d.dpl());
  if (!readable || privileged) return core.raise(kVectorGp, selector_error(selector));
  if (!d.present()) return core.raise(kVectorNp, selector_error(selector));
  if (!mark_accessed(core, d)) return false;
  set_segment(core, s, selector, d);
  return true;
}

void drop_privileged_segments(Core& core) noexcept {
  for (const SegmentRegister s : {kEs, kDs, kFs, kGs}) {
    const Segment& segment = core.seg[s];
    const unsigned type = segment.attributes & kSegType;
    const bool conforming = (type & (kTypeCode | kTypeConforming)) == (kTypeCode | kTypeConforming);
    const unsigned dpl = segment.attributes >> 5 & 3U;
    if ((segment.attributes & kSegPresent) == 0 || conforming || dpl >= core.cpl) continue;
    // The base stays, as guests rely on that of GS in 64-bit mode.
    core.seg[s] = Segment{.selector = 0, .attributes = 0, .limit = 0};
  }
}

bool legacy_inner_stack(Core& core, unsigned cpl, std::uint32_t ext, std::uint16_t& ss, std::uint32_t& esp) noexcept {
  const unsigned type = core.tr.attributes & kSegType;
  const bool is_32bit = type == kTypeTss || type == kTypeTssBusy;
  const std::uint32_t offset = is_32bit ? 4 + 8 * cpl : 2 + 4 * cpl;
  const std::uint32_t size = is_32bit ? 6 : 4;
  if (offset + size - 1 > core.tr.limit) return core.raise(kVectorTs, selector_error(core.tr.selector, ext));
  std::array<std::byte, 8> bytes{};
  if (!core.read_system(core.tr.base + offset, bytes.data(), size)) return false;
  esp = is_32bit ? load<std::uint32_t>(bytes.data()) : load<std::uint16_t>(bytes.data());
  ss = load<std::uint16_t>(bytes.data() + (is_32bit ? 4 : 2));
  return true;
}

bool long_stack_pointer(Core& core, unsigned slot, std::uint32_t ext, std::uint64_t& rsp) noexcept {
  const std::uint32_t offset = 4 + 8 * slot;
  if (offset + 7 > core.tr.limit) return core.raise(kVectorTs, selector_error(core.tr.selector, ext));
  if (!core.read_system(core.tr.base + offset, &rsp, sizeof rsp)) return false;
  if (!canonical(rsp)) return core.raise(kVectorSs, ext);
  return true;
}

Stack Stack::in_long_mode(Core& core, std::uint64_t sp, std::uint32_t error, bool system) noexcept {
  return Stack{.core = core,
               .base = 0,
               .mask = ~std::uint64_t{0},
               .sp = sp,
               .limit = 0xffff'ffff,
               .expand_down = false,
               .system = system,
               .error = error};
}

Stack Stack::present(Core& core) noexcept {
  if (core.code64) return in_long_mode(core, core.gpr[kRegRsp], 0, false);
  const Segment& ss = core.seg[kSs];
  return Stack{.core = core,
               .base = core.segment_base(kSs),
               .mask = (ss.attributes & kSegDefault) != 0 ? 0xffff'ffff : 0xffffU,
               .sp = core.gpr[kRegRsp],
               .limit = ss.limit,
               .expand_down = (ss.attributes & (kTypeCode | kTypeConforming)) == kTypeConforming,
               .system = false,
               .error = 0};
}

Stack Stack::inner(Core& core, const Descriptor& ss, std::uint64_t sp, std::uint32_t error, bool system) noexcept {
  return Stack{.core = core,
               .base = ss.base(),
               .mask = ss.big() ? 0xffff'ffff : 0xffffU,
               .sp = sp,
               .limit = ss.limit(),
               .expand_down = (ss.type() & (kTypeCode | kTypeConforming)) == kTypeConforming,
               .system = system,
               .error = error};
}

bool Stack::check(std::uint64_t at, unsigned bytes) const noexcept {
  if (mask == ~std::uint64_t{0})
    return canonical(at) && canonical(at + bytes - 1) ? true : core.raise(kVectorSs, error);
  const std::uint64_t last = at + bytes - 1;
  const bool inside = expand_down ? at > limit && last <= mask : last <= limit;
  return inside ? true : core.raise(kVectorSs, error);
}

bool Stack::push(std::uint64_t value, unsigned bytes) noexcept {
  const std::uint64_t at = (sp - bytes) & mask;
  if (!check(at, bytes)) return false;
  const bool done = system ? core.write_system(base + at, &value, bytes) : core.write_slow(base + at, &value, bytes);
  if (!done) return false;
  move_to(at);
  return true;
}

bool Stack::pop(std::uint64_t& value, unsigned bytes) noexcept {
  const std::uint64_t at = sp & mask;
  if (!check(at, bytes)) return false;
  value = 0;
  if (bytes == 8 && !system) {
    if (!core.read<std::uint64_t>(base + at, value)) return false;
  } else {
    const bool done = system ? core.read_system(base + at, &value, bytes) : core.read_slow(base + at, &value, bytes);
    if (!done) return false;
  }
  move_to(at + bytes);
  return true;
}

}  // namespace sevisor::emulator
