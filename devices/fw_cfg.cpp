#include "devices/fw_cfg.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <limits>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/mapping.hpp"
#include "base/unique_fd.hpp"

namespace sevisor::devices {

namespace {
enum Offset : std::uint8_t { kSelector = 0, kData = 1, kDmaHigh = 4, kDmaLow = 8, kDmaEnd = 12 };

constexpr std::uint32_t kIdTraditional = 0x1;
constexpr std::uint32_t kIdDma = 0x2;
constexpr std::string_view kSignature = "QEMU";
constexpr std::string_view kDmaSignature = "QEMU CFG";

constexpr std::uint16_t kFirstFileKey = 0x20;

// A file's entry in the directory; big-endian.
constexpr std::size_t kEntrySize = 64;
constexpr std::size_t kEntryKey = 4;
constexpr std::size_t kEntryName = 8;

// struct FWCfgDmaAccess; big-endian.
constexpr std::size_t kAccessSize = 16;
constexpr std::size_t kAccessLength = 4;
constexpr std::size_t kAccessAddress = 8;

// Its control field. The key to select is in bits 31:16.
constexpr std::uint32_t kControlError = 0x01;
constexpr std::uint32_t kControlRead = 0x02;
constexpr std::uint32_t kControlSkip = 0x04;
constexpr std::uint32_t kControlSelect = 0x08;
constexpr std::uint32_t kControlWrite = 0x10;
constexpr unsigned kControlKeyShift = 16;

constexpr std::array<std::byte, 4096> kZeros{};

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

template <class T>
FwCfgItem integer(T value) {
  std::vector<std::byte> bytes(sizeof value);
  store(bytes.data(), value);
  return FwCfgItem(std::move(bytes));
}

template <class T>
T load_big_endian(const std::byte* from) noexcept {
  return swap_bytes(load<T>(from));
}

Error cannot(const std::string& tried, std::string came_back) {
  return {ExitCode::kCrash, tried, std::move(came_back)};
}
}  // namespace

FwCfgItem::FwCfgItem(std::vector<std::byte> bytes) {
  const auto owned = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  bytes_ = *owned;
  keeper_ = owned;
}

FwCfgItem FwCfgItem::text(std::string_view text) {
  const auto bytes = as_bytes(text);
  return FwCfgItem(std::vector<std::byte>(bytes.begin(), bytes.end()));
}
FwCfgItem FwCfgItem::u16(std::uint16_t value) { return integer(value); }
FwCfgItem FwCfgItem::u32(std::uint32_t value) { return integer(value); }
FwCfgItem FwCfgItem::u64(std::uint64_t value) { return integer(value); }

FwCfgItem FwCfgItem::file(const std::string& path) {
  const auto fail = [&](const char* verb) {
    return Error(ExitCode::kBadUsage, fmt::format("{} {}", verb, path), errno_text(errno),
                 "Name a file that can be read");
  };
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) throw fail("open");
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) throw fail("stat");
  if (!S_ISREG(status.st_mode)) {
    throw Error(ExitCode::kBadUsage, fmt::format("open {}", path), "not a regular file",
                "Name a file that can be read");
  }
  if (status.st_size == 0) return {};
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) throw fail("map");
  const auto mapping = std::make_shared<const Mapping>(address, size);
  return FwCfgItem(mapping->bytes(), mapping);
}

FwCfg::FwCfg(GuestDma* dma) : dma_(dma) {
  put(static_cast<std::uint16_t>(FwCfgKey::kSignature), FwCfgItem::text(kSignature));
  put(static_cast<std::uint16_t>(FwCfgKey::kId), FwCfgItem::u32(kIdTraditional | (dma_ != nullptr ? kIdDma : 0)));
  rebuild_directory();
}

void FwCfg::put(std::uint16_t key, FwCfgItem item) {
  if (item.bytes().size() > std::numeric_limits<std::uint32_t>::max()) {
    throw cannot(fmt::format("add fw_cfg item {:#x}", key), "it is larger than 4 GiB");
  }
  items_.insert_or_assign(key, std::move(item));
  select(
      static_cast<std::uint16_t>(FwCfgKey::kSignature));  // what was selected may have pointed into the item replaced
}

void FwCfg::add(FwCfgKey key, FwCfgItem item) {
  const std::lock_guard lock(mutex_);
  const auto number = static_cast<std::uint16_t>(key);
  if (key == FwCfgKey::kSignature || key == FwCfgKey::kId ||
      number >= static_cast<std::uint16_t>(FwCfgKey::kFileDirectory)) {
    throw cannot(fmt::format("add fw_cfg item {:#x}", number), "the device makes that one itself");
  }
  put(number, std::move(item));
}

void FwCfg::add_file(std::string_view name, FwCfgItem item) {
  const std::lock_guard lock(mutex_);
  const std::string tried = fmt::format("add fw_cfg file '{}'", name);
  if (name.empty() || name.size() > kMaxNameLength || name.find('\0') != std::string_view::npos) {
    throw cannot(tried, fmt::format("a name has 1 to {} characters", kMaxNameLength));
  }
  const bool is_new = !files_.contains(name);
  if (is_new && files_.size() >= kMaxFiles) throw cannot(tried, "the directory is full");
  if (item.bytes().size() > std::numeric_limits<std::uint32_t>::max()) throw cannot(tried, "it is larger than 4 GiB");
  files_.insert_or_assign(std::string(name), std::move(item));
  rebuild_directory();
}

std::span<const std::byte> FwCfg::find_file(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(name);
  return found == files_.end() ? std::span<const std::byte>() : found->second.bytes();
}

void FwCfg::rebuild_directory() {
  std::vector<std::byte> directory(sizeof(std::uint32_t) + files_.size() * kEntrySize);
  store(directory.data(), swap_bytes(static_cast<std::uint32_t>(files_.size())));
  std::byte* entry = directory.data() + sizeof(std::uint32_t);
  std::uint16_t key = kFirstFileKey;
  for (const auto& [name, item] : files_) {
    store(entry, swap_bytes(static_cast<std::uint32_t>(item.bytes().size())));
    store(entry + kEntryKey, swap_bytes(key));
    std::ranges::copy(as_bytes(name), entry + kEntryName);
    put(key, item);
    entry += kEntrySize;
    ++key;
  }
  put(static_cast<std::uint16_t>(FwCfgKey::kFileDirectory), FwCfgItem(std::move(directory)));
}

void FwCfg::select(std::uint16_t key) {
  const auto found = items_.find(key);
  current_ = found == items_.end() ? std::span<const std::byte>() : found->second.bytes();
  position_ = 0;
}

// Past the end of an item there are zeros.
void FwCfg::read_data(std::span<std::byte> to) {
  const std::size_t copied = std::min(to.size(), current_.size() - position_);
  std::ranges::copy(current_.subspan(position_, copied), to.begin());
  std::ranges::fill(to.subspan(copied), std::byte{0});
  position_ += copied;
}

void FwCfg::read(std::uint64_t offset, std::span<std::byte> to) {
  const std::lock_guard lock(mutex_);
  if (offset == kData) {
    read_data(to);
  } else if (dma_ != nullptr && offset >= kDmaHigh && offset + to.size() <= kDmaEnd) {
    std::ranges::copy(as_bytes(kDmaSignature).subspan(offset - kDmaHigh, to.size()), to.begin());
  } else {
    std::ranges::fill(to, std::byte{0xff});
  }
}

void FwCfg::read_string(std::uint64_t offset, std::size_t element, std::span<std::byte> to) {
  if (offset != kData) {
    Device::read_string(offset, element, to);
    return;
  }
  const std::lock_guard lock(mutex_);
  read_data(to);
}

void FwCfg::write(std::uint64_t offset, std::span<const std::byte> from) {
  const std::lock_guard lock(mutex_);
  if (offset == kSelector && from.size() == 2) {
    select(load<std::uint16_t>(from.data()));
    return;
  }
  if (dma_ == nullptr) return;
  // The address register is big-endian; writing its low half starts the transfer.
  if (offset == kDmaHigh && from.size() == 8) {
    run_dma(Gpa(load_big_endian<std::uint64_t>(from.data())));
  } else if (offset == kDmaHigh && from.size() == 4) {
    dma_address_ = std::uint64_t{load_big_endian<std::uint32_t>(from.data())} << 32;
  } else if (offset == kDmaLow && from.size() == 4) {
    run_dma(Gpa(dma_address_ | load_big_endian<std::uint32_t>(from.data())));
  }
}

void FwCfg::run_dma(Gpa at) {
  dma_address_ = 0;
  std::array<std::byte, kAccessSize> access{};
  std::uint32_t answer = kControlError;
  if (dma_->read(at, access)) {
    const auto control = load_big_endian<std::uint32_t>(access.data());
    if ((control & kControlSelect) != 0) select(static_cast<std::uint16_t>(control >> kControlKeyShift));
    const Gpa target(load_big_endian<std::uint64_t>(access.data() + kAccessAddress));
    if (transfer(control, target, load_big_endian<std::uint32_t>(access.data() + kAccessLength))) answer = 0;
  }
  answer = swap_bytes(answer);
  // When even this fails there is nobody left to tell.
  (void)dma_->write(at, std::as_bytes(std::span(&answer, 1)));
}

bool FwCfg::transfer(std::uint32_t control, Gpa at, std::uint32_t length) {
  if ((control & (kControlRead | kControlWrite | kControlSkip)) == 0) return true;
  if ((control & kControlRead) == 0 && (control & kControlWrite) != 0) return length == 0;  // no item is writable

  const auto data = current_.subspan(position_, std::min<std::size_t>(length, current_.size() - position_));
  if ((control & kControlRead) != 0) {
    if (length > std::numeric_limits<std::uint64_t>::max() - at.value) return false;
    if (!data.empty() && !dma_->write(at, data)) return false;
    std::size_t done = data.size();
    while (done < length) {
      const auto zeros = std::span(kZeros).first(std::min<std::size_t>(kZeros.size(), length - done));
      if (!dma_->write(at + done, zeros)) return false;
      done += zeros.size();
    }
  }
  position_ += data.size();
  return true;
}

}  // namespace sevisor::devices
