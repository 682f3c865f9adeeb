#include "kvm/recording_host.hpp"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.hpp"
#include "kvm/abi.hpp"
#include "kvm/call_record.hpp"

namespace sevisor::kvm {

namespace {

using Json = nlohmann::ordered_json;

class RecordingHost final : public Host {
 public:
  RecordingHost(std::unique_ptr<Host> inner, RecordSink sink) : inner_(std::move(inner)), sink_(std::move(sink)) {}

  [[nodiscard]] std::string_view name() const noexcept override { return inner_->name(); }

  int open(const char* path, int flags) override {
    Json json = {{"call", fmt::format("open {}", path)}, {"request", {{"flags", flags}}}};
    const int result = inner_->open(path, flags);
    return finish(std::move(json), result);
  }

  int ioctl(int fd, unsigned long request, void* argument) override {
    Json json = {{"call", call_name(request, argument)}, {"fd", fd}, {"number", fmt::format("{:#x}", request)}};
    if (Json asked = describe_request(request, argument); !asked.is_null()) json["request"] = std::move(asked);
    const int result = inner_->ioctl(fd, request, argument);
    const int error_number = errno;
    Json answer = request == KVM_RUN ? (result >= 0 ? exit_of(fd) : Json()) : describe_answer(request, argument);
    if (!answer.is_null()) json["answer"] = std::move(answer);
    errno = error_number;
    return finish(std::move(json), result);
  }

  void* mmap(int fd, std::size_t size) override {
    Json json = {{"call", "mmap"}, {"fd", fd}, {"request", {{"size", size}}}};
    void* area = inner_->mmap(fd, size);
    const int error_number = errno;
    if (area != nullptr) {
      const std::lock_guard lock(mutex_);
      run_areas_[fd] = area;
    }
    errno = error_number;
    finish(std::move(json), area == nullptr ? -1 : 0);
    return area;
  }

  int munmap(void* address, std::size_t size) override {
    const int result = inner_->munmap(address, size);
    return finish({{"call", "munmap"}, {"request", {{"size", size}}}}, result);
  }

  int close(int fd) override {
    const int result = inner_->close(fd);
    const int error_number = errno;
    {
      const std::lock_guard lock(mutex_);
      run_areas_.erase(fd);
    }
    errno = error_number;
    return finish({{"call", "close"}, {"fd", fd}}, result);
  }

 private:
  Json exit_of(int fd) {
    const std::lock_guard lock(mutex_);
    const auto area = run_areas_.find(fd);
    return area == run_areas_.end() ? Json() : describe_exit(area->second);
  }

  int finish(Json json, int result) {
    const int error_number = errno;
    json["result"] = result;
    if (result < 0) {
      const char* error_name = strerrorname_np(error_number);
      json["errno"] = error_name != nullptr ? error_name : std::to_string(error_number);
    }
    const std::lock_guard lock(mutex_);
    Json numbered = {{"n", ++count_}};
    numbered.update(json);
    sink_(numbered.dump(-1, ' ', false, Json::error_handler_t::replace));
    errno = error_number;
    return result;
  }

  std::unique_ptr<Host> inner_;
  RecordSink sink_;
  std::mutex mutex_;  // guards what follows, and is held while the sink is called
  std::uint64_t count_ = 0;
  std::map<int, void*> run_areas_;  // of vCPUs, by descriptor
};

class FailingHost final : public Host {
 public:
  FailingHost(std::unique_ptr<Host> inner, Fault fault, CallCount count)
      : inner_(std::move(inner)), fault_(std::move(fault)), seen_(std::move(count)) {
    if (seen_ == nullptr) seen_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  }

  [[nodiscard]] std::string_view name() const noexcept override { return inner_->name(); }

  int open(const char* path, int flags) override {
    if (its_turn(fmt::format("open {}", path))) return fail();
    return inner_->open(path, flags);
  }

  int ioctl(int fd, unsigned long request, void* argument) override {
    if (!its_turn(call_name(request, argument))) return inner_->ioctl(fd, request, argument);
    if (request == KVM_MEMORY_ENCRYPT_OP && argument != nullptr) {
      static_cast<kvm_sev_cmd*>(argument)->error = fault_.firmware_status;
    } else if (request == SEV_ISSUE_CMD && argument != nullptr) {
      static_cast<sev_issue_cmd*>(argument)->error = fault_.firmware_status;
    }
    return fail();
  }

  void* mmap(int fd, std::size_t size) override {
    if (!its_turn("mmap")) return inner_->mmap(fd, size);
    fail();
    return nullptr;
  }

  int munmap(void* address, std::size_t size) override {
    const int result = inner_->munmap(address, size);
    return its_turn("munmap") ? fail() : result;
  }

  int close(int fd) override {
    const int result = inner_->close(fd);
    return its_turn("close") ? fail() : result;
  }

 private:
  bool its_turn(std::string_view call) { return call == fault_.call && ++*seen_ == fault_.number; }
  int fail() const {
    errno = fault_.error_number;
    return -1;
  }

  std::unique_ptr<Host> inner_;
  Fault fault_;
  CallCount seen_;
};

int errno_of(std::string_view name) {
  constexpr int kLargest = 134;  // EHWPOISON is 133
  for (int number = 1; number < kLargest; ++number) {
    const char* known = strerrorname_np(number);
    if (known != nullptr && name == known) return number;
  }
  return 0;
}

template <class T>
bool read_number(std::string_view text, T& to) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::unique_ptr<Host> make_recording_host(std::unique_ptr<Host> inner, RecordSink sink) {
  return std::make_unique<RecordingHost>(std::move(inner), std::move(sink));
}

std::unique_ptr<Host> make_failing_host(std::unique_ptr<Host> inner, Fault fault, CallCount count) {
  return std::make_unique<FailingHost>(std::move(inner), std::move(fault), std::move(count));
}

Fault parse_fault(std::string_view text) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(':', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  Fault fault;
  fault.call = parts[0];
  fault.error_number = EIO;
  bool right = parts.size() <= 4 && !fault.call.empty();
  if (right && parts.size() > 1) right = read_number(parts[1], fault.number) && fault.number > 0;
  if (right && parts.size() > 2) right = (fault.error_number = errno_of(parts[2])) != 0;
  if (right && parts.size() > 3) right = read_number(parts[3], fault.firmware_status);
  if (!right) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the failure '{}'", text),
                "it is not CALL[:NUMBER[:ERRNO[:FIRMWARE STATUS]]]", "Give it as LAUNCH_START:1:EIO:7.");
  }
  if (!is_call_name(fault.call)) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the failure '{}'", text),
                fmt::format("there is no call '{}', so it would never fail", fault.call),
                fmt::format("There are: {}.", fmt::join(known_call_names(), ", ")));
  }
  return fault;
}

}  // namespace sevisor::kvm
